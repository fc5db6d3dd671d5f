"""When multipart uploads began, told on the way from the server: moto says 2010 of every one."""

import re
from datetime import UTC, datetime

from servers.s3_proxy import S3Proxy


class Beginnings:
    """The times that the proxy's clients are told: those at which uploads began, unless a test says otherwise."""

    def __init__(self, proxy: S3Proxy) -> None:
        self._begun: dict[str, datetime] = {}
        proxy.edit("CreateMultipartUpload", self._note)
        proxy.edit("ListMultipartUploads", self._tell)

    def backdate(self, upload_id: str, begun: datetime) -> None:
        """Tell this of an upload."""
        self._begun[upload_id] = begun

    def _note(self, answer: bytes) -> bytes:
        if created := re.search(rb"<UploadId>([^<]+)</UploadId>", answer):
            self._begun[created[1].decode()] = datetime.now(UTC)
        return answer

    def _tell(self, answer: bytes) -> bytes:
        return re.sub(rb"<Upload>.*?</Upload>", self._dated, answer, flags=re.DOTALL)

    def _dated(self, entry: re.Match[bytes]) -> bytes:
        upload_id = re.search(rb"<UploadId>([^<]+)<", entry[0])
        begun = self._begun.get(upload_id[1].decode()) if upload_id else None
        if begun is None:
            return entry[0]
        return re.sub(rb"<Initiated>[^<]+", f"<Initiated>{begun:%Y-%m-%dT%H:%M:%S.000Z}".encode(), entry[0])
