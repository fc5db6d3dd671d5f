"""One upload over as many streams as it takes: what the service has for sure, and how the next stream goes on.

The CRC32C of the whole goes on too. It is known at the end of each chunk, so the source is read again from the last
such place at or before ``persisted_size``, and sent again from that very byte.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from keystow.v1 import storage_pb2
from keystow.v1.storage_pb2 import PutHeader
from keystow_client.content import Content
from keystow_client.errors import IntegrityError, SourceChangedError
from keystow_client.models import UploadProgress
from keystow_client.window import Source

ProgressListener = Callable[[UploadProgress], object]

_MAX_MARKS = 1 << 16  # a server that reports nothing for 64 GiB gets them again from the start


@dataclass(frozen=True, slots=True)
class _Mark:
    offset: int
    crc32c: int


_START = _Mark(0, 0)


class Upload:
    """See the module. ``content`` is what was sent so far, or need not be sent again."""

    def __init__(
        self,
        header: PutHeader,
        source: Source,
        *,
        resumable: bool,
        progress: UploadProgress | None = None,
        listener: ProgressListener | None = None,
    ) -> None:
        """``header`` is complete but for the size. ``progress`` continues another process's upload."""
        self.source = source
        self.resumable = resumable
        self.progress = progress
        self.listener = listener
        self.header = PutHeader()
        self.header.CopyFrom(header)
        if source.size is not None:
            self.header.size = source.size
        self.header.resumable = resumable
        self.content = Content(with_sha256=header.verify_sha256)
        self._marks = deque([_START], maxlen=_MAX_MARKS)

    @property
    def persisted_size(self) -> int:
        """Bytes that survive the loss of this stream."""
        return self.progress.persisted_size if self.progress else 0

    @property
    def can_go_on(self) -> bool:
        """Whether the source can give the bytes that the next stream needs."""
        return self.source.can_start_at(self._mark.offset)

    def restart(self, *, resumable: bool) -> None:
        """The next stream begins a new upload, with the first byte."""
        self.progress = None
        self.resumable = self.header.resumable = resumable
        self._marks = deque([_START], maxlen=_MAX_MARKS)
        if not resumable:
            self.source.hold_no_more()

    def first_message(self) -> PutHeader:
        """The header that begins the next stream: a new upload, or the last token."""
        if self.progress is None:
            return self.header
        return PutHeader(
            tenant_id=self.header.tenant_id,
            key=self.header.key,
            upload_id=self.header.upload_id,
            resume_token=self.progress.resume_token,
            resumable=True,
        )

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The source's bytes for the next stream; to be begun with ``catch_up``."""
        mark = self._mark
        self.content = Content(size=mark.offset, crc32c=mark.crc32c, with_sha256=self.header.verify_sha256)
        return self.source.chunks(mark.offset)

    async def catch_up(self, chunks: AsyncGenerator[bytes, None]) -> bytes:
        """Read what the service has already; gives the rest of the chunk in which that ends, to be sent first.

        Raises SourceChangedError if the source no longer has those bytes.
        """
        rest = b""
        while missing := self.persisted_size - self.content.size:
            chunk = await anext(chunks, b"")
            if not chunk:
                raise _changed(self.persisted_size)
            rest = chunk[missing:]
            self.content.add(chunk[:missing])
            if not rest:
                self._remember()
        if self.progress and self.progress.crc32c not in (None, self.content.crc32c):
            raise _changed(self.persisted_size)
        return rest

    def add(self, chunk: bytes) -> None:
        """These bytes are being sent."""
        self.content.add(chunk)
        if self.resumable:
            self._remember()

    def advance(self, reported: storage_pb2.UploadProgress) -> None:
        """The service has more for sure. Raises IntegrityError if that is more than it was given."""
        if not reported.resume_token or reported.persisted_size < self.persisted_size:
            return
        if reported.persisted_size > self.content.size:
            raise IntegrityError("The server reported more bytes as persisted than it was sent.")
        while len(self._marks) > 1 and self._marks[1].offset <= reported.persisted_size:
            self._marks.popleft()
        mark = self._marks[0]
        self.progress = UploadProgress.from_proto(
            reported, self.header.upload_id, mark.crc32c if mark.offset == reported.persisted_size else None
        )
        self.source.release(mark.offset)
        if self.listener is not None:
            self.listener(self.progress)

    @property
    def _mark(self) -> _Mark:
        """The last place known at or before persisted_size."""
        known = _START
        for mark in self._marks:
            if mark.offset > self.persisted_size:
                break
            known = mark
        return known

    def _remember(self) -> None:
        """The content ends where a chunk does: the source can be read from here on."""
        if self.content.size > self._marks[-1].offset:
            self._marks.append(_Mark(self.content.size, self.content.crc32c))


def _changed(size: int) -> SourceChangedError:
    return SourceChangedError(
        f"The source's first {size} bytes are not those that were uploaded: it changed, or is another one. Upload it "
        "from the beginning. Nothing was stored."
    )
