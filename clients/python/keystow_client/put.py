"""One object's way to the service: in one message if it is small, else as a stream of chunks, continued if it breaks.

OK is believed only if the service acknowledges the very bytes that were read: size, CRC32C, and SHA-256 if asked for.
Every attempt uses the same upload_id, so that a repeated Put whose first answer was lost stores nothing twice.
"""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystow.v1.storage_pb2 import AbortPutRequest, ObjectInfo, PutHeader, PutSmallRequest
from keystow_client.channel import translated
from keystow_client.content import Content
from keystow_client.errors import KeystowError, Recovery
from keystow_client.models import UploadProgress
from keystow_client.put_stream import Progress, PutStream
from keystow_client.retry import GOING_ON, Patience, Retries
from keystow_client.upload import ProgressListener, Upload
from keystow_client.window import CHUNK_SIZE, Source

if TYPE_CHECKING:
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub  # exists only in the stubs

# Larger objects, and those of unknown size, are uploaded so that a broken connection costs only what was in flight.
RESUMABLE_ABOVE = 16 << 20
# As many bytes as the service may have in flight (UploadProgress.persisted_size), so that it never runs short of them.
DEFAULT_RESUME_BUFFER = 256 << 20

_ABANDON_TIMEOUT = 5.0  # seconds; an upload that is not discarded now is when it expires


@dataclass(frozen=True, slots=True)
class Resuming:
    """How a Put deals with broken connections.

    ``wanted`` is None where the object decides. ``buffer`` bounds the bytes held of a source that gives them once.
    ``progress`` continues another process's upload, ``listener`` makes it possible.
    """

    wanted: bool | None = None
    buffer: int = DEFAULT_RESUME_BUFFER
    progress: UploadProgress | None = None
    listener: ProgressListener | None = None

    @property
    def private(self) -> bool:
        """Whether nobody else can know, and so continue, the upload."""
        return self.progress is None and self.listener is None

    def applies_to(self, header: PutHeader, size: int | None) -> bool:
        """Whether this Put is to be resumable."""
        if self.wanted is not None:
            return self.wanted
        return not header.verify_sha256 and (size is None or size > RESUMABLE_ABOVE or self.progress is not None)


@dataclass(frozen=True, slots=True)
class Putter:
    """How objects are put: over which stub, how persistently, and how many seconds of silence are believed."""

    stub: "StorageServiceAsyncStub"
    retry: Patience
    stall_timeout: float

    async def put(self, header: PutHeader, source: Source, resuming: Resuming, progress: Progress) -> ObjectInfo:
        """Store the object, and return what the service says of it. Raises KeystowError, and what the source raises.

        ``header`` is complete but for the size and ``resumable``. ``progress`` hears how far the source was sent: after
        an interruption from where the service has it.
        """
        resumable = resuming.applies_to(header, source.size)
        upload = Upload(header, source, resumable=resumable, progress=resuming.progress, listener=resuming.listener)
        if resumable:
            source.hold(resuming.buffer, patience=self.stall_timeout / 4)
        retries = Retries(self.retry)
        try:
            while True:
                try:
                    return await self._attempt(upload, progress)
                except KeystowError as error:
                    position = upload.persisted_size
                    unsupported = upload.resumable and resuming.wanted is None and error.reason == "NOT_IMPLEMENTED"
                    # By a part of its own broken stream, which arrived late.
                    superseded = resuming.private and error.reason == "UPLOAD_SUPERSEDED"
                    # If refused, it may be another server's: whoever has kept it decides what becomes of the upload.
                    given = resuming.progress is not None and upload.progress is resuming.progress
                    if given and error.reason == "RESUME_TOKEN_INVALID":
                        helps = False
                    elif unsupported or superseded or error.recovery is Recovery.RESTART:
                        helps = source.can_start_at(0)
                        if helps:
                            await self._abandon(upload)
                            upload.restart(resumable=upload.resumable and not unsupported)
                    else:
                        helps = upload.can_go_on and error.recovery in GOING_ON
                    await retries.pause(error, helps=helps, position=position)
        except BaseException:
            if resuming.private:
                await asyncio.shield(self._abandon(upload))
            raise

    async def _attempt(self, upload: Upload, progress: Progress) -> ObjectInfo:
        if upload.progress is None and not upload.header.verify_sha256:
            head = await upload.source.head()
            if len(head) < CHUNK_SIZE:
                return await self._put_small(upload, head, progress)
        async with aclosing(upload.chunks()) as chunks:
            rest = await upload.catch_up(chunks)
            stream = PutStream(self.stub.Put(), upload, self.stall_timeout, progress)
            return await stream.run(rest, chunks)

    async def _put_small(self, upload: Upload, data: bytes, progress: Progress) -> ObjectInfo:
        content = Content()
        content.add(data)
        content.require_size(upload.source.size)
        header = PutHeader()
        header.CopyFrom(upload.header)
        header.ClearField("size")
        header.ClearField("resumable")
        async with translated(None):
            response = await self.stub.PutSmall(
                PutSmallRequest(header=header, data=data, crc32c=content.crc32c), timeout=self.stall_timeout
            )
        content.require_same(response.object)
        progress(content.size)
        return response.object

    async def _abandon(self, upload: Upload) -> None:
        """Discard what the service keeps for a resume, as far as that is possible now."""
        if upload.progress is None:
            return
        request = AbortPutRequest(
            tenant_id=upload.header.tenant_id,
            key=upload.header.key,
            upload_id=upload.header.upload_id,
            resume_token=upload.progress.resume_token,
        )
        with suppress(KeystowError):
            async with translated(None):
                await self.stub.AbortPut(request, timeout=min(_ABANDON_TIMEOUT, self.stall_timeout))
