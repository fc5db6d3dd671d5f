"""When multipart uploads began, told on the way from moto, which says 2010 of every one."""

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
        for upload_id, begun in self._begun.items():
            entry = rb"(<UploadId>%b</UploadId>.*?<Initiated>)[^<]+" % re.escape(upload_id.encode())
            told = f"{begun:%Y-%m-%dT%H:%M:%S.000Z}".encode()
            answer = re.sub(entry, rb"\g<1>%b" % told, answer, flags=re.DOTALL)
        return answer
