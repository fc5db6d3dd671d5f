"""The asynchronous client: one method a call. The synchronous one is this, run in a thread.

Every method may raise KeystowError; what else it raises, it says. ValueError means that an argument cannot be sent at
all, such as a key that is not valid Unicode.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Self, overload
from uuid import uuid4

import grpc
import grpc.aio

from keystow.v1 import storage_pb2
from keystow.v1.storage_pb2_grpc import StorageServiceStub
from keystow.v1.tenants_pb2_grpc import TenantServiceStub
from keystow_client.address import Address
from keystow_client.aio_tenants import AsyncTenants
from keystow_client.archive_sinks import open_archive_sink
from keystow_client.channel import open_channel
from keystow_client.connection import Connection
from keystow_client.errors import KeystowError, TransportError, is_object_not_found
from keystow_client.export import AsyncExport, CheckpointListener, EntryListener, Exporter, ExportListeners
from keystow_client.export_models import BEGINNING, ArchiveFormat, ErrorPolicy, ExportCheckpoint, ExportSummary
from keystow_client.get import AsyncDownload, Getter
from keystow_client.handshake import Handshakes
from keystow_client.models import ObjectInfo, ObjectPage, ServerInfo, UploadProgress, WriteMode
from keystow_client.put import DEFAULT_RESUME_BUFFER, Putter, Resuming
from keystow_client.put_stream import Progress
from keystow_client.retry import DEFAULT_POLICY, FROM_THE_START, Patience, RetryPolicy, retrying
from keystow_client.sinks import SinkLike, open_sink
from keystow_client.sources import SourceLike, open_source
from keystow_client.threads import OwnThread, TransferThread
from keystow_client.tls import Tls, protection
from keystow_client.upload import ProgressListener

DEFAULT_STALL_TIMEOUT = 300.0

# Failures after which a change may have been made all the same.
_DOUBTFUL = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL})

_ARCHIVE_FORMATS = {
    ArchiveFormat.TAR: storage_pb2.ARCHIVE_FORMAT_TAR,
    ArchiveFormat.ZIP: storage_pb2.ARCHIVE_FORMAT_ZIP,
}
_ERROR_POLICIES = {
    ErrorPolicy.STOP: storage_pb2.ERROR_POLICY_STOP,
    ErrorPolicy.CONTINUE: storage_pb2.ERROR_POLICY_CONTINUE,
}
_WRITE_MODES = {
    WriteMode.CREATE: storage_pb2.WRITE_MODE_CREATE,
    WriteMode.OVERWRITE: storage_pb2.WRITE_MODE_OVERWRITE,
}


class AsyncClient(AsyncTenants):
    """keystow over one connection, for one event loop. Use it as an async context manager.

    Calls may run at the same time. Failures are retried where their ``recovery`` says that helps; see RetryPolicy.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: Tls | None = None,
        insecure: bool = False,
        retry: RetryPolicy = DEFAULT_POLICY,
        stall_timeout: float = DEFAULT_STALL_TIMEOUT,
    ) -> None:
        """``address`` is host:port, by default $KEYSTOW_ADDRESS or 127.0.0.1:50051.

        Without ``tls`` the environment says whether there is TLS ($KEYSTOW_TLS, $KEYSTOW_CA_FILE, ...), and else the
        address: none on loopback, Tls() everywhere else. ``insecure`` connects in clear, wherever that is. A call on
        which nothing moves for ``stall_timeout`` seconds counts as a lost connection.

        Raises ValueError for an address that is none, and for contradictions about TLS.
        """
        self._address = Address.chosen(address)
        self._tls = protection(self._address, tls, insecure=insecure)
        self._retry = Patience(retry, Handshakes(self._address, self._tls).diagnose)
        self._stall_timeout = stall_timeout
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        """Opens the channel; the connection is made with the first call.

        Reads the files of TLS, and raises ValueError if they are not fit for use. Those that change later are for the
        next client.
        """
        channel = await open_channel(self._address, self._tls)
        self._connection = Connection(
            channel, StorageServiceStub(channel), TenantServiceStub(channel), self._retry, self._stall_timeout
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends what still runs, and the connection."""
        connection, self._connection = self._open, None
        await connection.channel.close()

    async def put(
        self,
        tenant: str,
        key: str,
        source: SourceLike,
        *,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        mode: WriteMode = WriteMode.CREATE,
        if_version_id: str = "",
        size: int | None = None,
        upload_id: str | None = None,
        verify_sha256: bool = False,
        resumable: bool | None = None,
        resume_buffer: int = DEFAULT_RESUME_BUFFER,
        resume_from: UploadProgress | None = None,
        on_upload_progress: ProgressListener | None = None,
        progress: Progress | None = None,
        thread: TransferThread | None = None,
    ) -> ObjectInfo:
        """Store an object, and go on where a broken connection left off.

        ``source`` is a path (os.PathLike; a str is refused as ambiguous), bytes, a binary file object from its current
        position on, an iterable or an async iterable of bytes. ``size`` in bytes helps the service where the source
        does not know its own; a source of another size is SourceChangedError. ``if_version_id`` replaces only that
        version and excludes WriteMode.OVERWRITE. ``upload_id``, a UUID, makes repeating the same Put harmless.
        ``verify_sha256`` has the service check and keep the SHA-256; such a Put can only begin anew. ``progress`` hears
        how many bytes of the source were sent, after an interruption from where the service has them; it is called in
        the event loop, and must return at once. Blocking sources are read in ``thread``, by default one of their own.

        ``resumable`` is by default chosen for more than 16 MiB and for unknown sizes. What can be read only once is
        held in memory from the last byte that the service has for sure, up to ``resume_buffer`` bytes; with 0 it is
        not, and such a source cannot be continued. ``on_upload_progress`` hears, as ``progress`` does, what another
        process needs to go on: give it there as ``resume_from``, with the same source and arguments. If the service
        does not take it (RESUME_TOKEN_INVALID), nothing is begun anew. Without a listener an upload that fails for good
        is discarded.

        Raises TypeError for what cannot be read, SourceChangedError for a file that changed, and whatever the source
        raises.
        """
        if verify_sha256 and (resumable or resume_from):
            raise ValueError("verify_sha256 excludes resuming: leave one of them out")
        if resume_from and upload_id not in (None, resume_from.upload_id):
            raise ValueError("resume_from is of another upload_id: leave upload_id out")
        if if_version_id and mode == WriteMode.OVERWRITE:
            raise ValueError("if_version_id already says what to overwrite: leave mode out")
        header = storage_pb2.PutHeader(
            tenant_id=tenant,
            key=key,
            upload_id=resume_from.upload_id if resume_from else upload_id or str(uuid4()),
            content_type=content_type,
            metadata=metadata,
            write_mode=storage_pb2.WRITE_MODE_UNSPECIFIED if if_version_id else _WRITE_MODES[mode],
            if_version_id=if_version_id,
            verify_sha256=verify_sha256,
        )
        putter = Putter(self._open.storage, self._retry, self._stall_timeout)
        resuming = Resuming(resumable, resume_buffer, resume_from, on_upload_progress)
        with _lent(thread) as reader:
            async with await open_source(source, size, reader) as opened:
                return ObjectInfo.from_proto(await putter.put(header, opened, resuming, progress or _unheard))

    async def abort_put(self, tenant: str, key: str, progress: UploadProgress) -> None:
        """Discard an unfinished upload. One that is unknown, or finished, is no failure."""
        request = storage_pb2.AbortPutRequest(
            tenant_id=tenant, key=key, upload_id=progress.upload_id, resume_token=progress.resume_token
        )
        await self._open.call(self._open.storage.AbortPut, request)

    @overload
    async def get(
        self, tenant: str, key: str, *, offset: int = 0, length: int | None = None, version_id: str = ""
    ) -> AsyncDownload: ...

    @overload
    async def get(
        self,
        tenant: str,
        key: str,
        dest: SinkLike,
        *,
        offset: int = 0,
        length: int | None = None,
        version_id: str = "",
        overwrite: bool = True,
        progress: Progress | None = None,
        thread: TransferThread | None = None,
    ) -> ObjectInfo: ...

    async def get(
        self,
        tenant: str,
        key: str,
        dest: SinkLike | None = None,
        *,
        offset: int = 0,
        length: int | None = None,
        version_id: str = "",
        overwrite: bool = True,
        progress: Progress | None = None,
        thread: TransferThread | None = None,
    ) -> AsyncDownload | ObjectInfo:
        """Fetch an object, or ``length`` bytes of it from ``offset`` on; a negative offset counts from the end.

        Without ``dest`` returns an AsyncDownload to iterate. A ``dest`` path (os.PathLike) appears only when complete
        and verified; unless ``overwrite``, FileExistsError if it is there. A binary file object is written to as the
        bytes come. ``version_id`` fetches only that version. ``progress`` and ``thread`` as in ``put``.

        Raises TypeError for what cannot be written to, and whatever the destination raises.
        """
        request = storage_pb2.GetRequest(tenant_id=tenant, key=key, version_id=version_id, offset=offset, length=length)
        getter = Getter(self._open.storage, self._retry, self._stall_timeout)
        if dest is None:
            return await getter.download(request)
        sink = open_sink(dest, overwrite=overwrite)
        with _lent(thread) as writer:
            return await getter.fetch(request, sink, writer, progress or _unheard)

    @overload
    async def export(
        self,
        tenant: str,
        *,
        prefix: str = "",
        keys: Iterable[str] | None = None,
        archive_format: ArchiveFormat = ArchiveFormat.TAR,
        on_error: ErrorPolicy = ErrorPolicy.STOP,
        resume_from: ExportCheckpoint | None = None,
        on_entry: EntryListener | None = None,
    ) -> AsyncExport: ...

    @overload
    async def export(
        self,
        tenant: str,
        dest: SinkLike,
        *,
        prefix: str = "",
        keys: Iterable[str] | None = None,
        archive_format: ArchiveFormat = ArchiveFormat.TAR,
        on_error: ErrorPolicy = ErrorPolicy.STOP,
        resume_from: ExportCheckpoint | None = None,
        on_entry: EntryListener | None = None,
        on_checkpoint: CheckpointListener | None = None,
        overwrite: bool = True,
        progress: Progress | None = None,
        thread: TransferThread | None = None,
    ) -> ExportSummary: ...

    async def export(
        self,
        tenant: str,
        dest: SinkLike | None = None,
        *,
        prefix: str = "",
        keys: Iterable[str] | None = None,
        archive_format: ArchiveFormat = ArchiveFormat.TAR,
        on_error: ErrorPolicy = ErrorPolicy.STOP,
        resume_from: ExportCheckpoint | None = None,
        on_entry: EntryListener | None = None,
        on_checkpoint: CheckpointListener | None = None,
        overwrite: bool = True,
        progress: Progress | None = None,
        thread: TransferThread | None = None,
    ) -> AsyncExport | ExportSummary:
        """Export all objects whose keys start with ``prefix``, or those with ``keys``, as one archive.

        Without ``dest`` returns an AsyncExport to iterate. A ``dest`` path (os.PathLike) appears only when the archive
        is whole and verified; unless ``overwrite``, FileExistsError if it is there. A binary file object is written to
        from where it stands, and one that can be cut ends where the archive does.

        A tar archive goes on after an interruption from its last checkpoint, a zip archive begins again. A path or a
        file that can be cut loses what came after that place. A pipe, or whoever iterates, gets each byte once: what is
        repeated is compared with what was handed on, and AbortedError tells that objects changed meanwhile.

        With ErrorPolicy.CONTINUE look at ``summary.complete``: objects that failed are missing. ``on_entry`` hears each
        object once, failed ones with their ``error``, when a checkpoint or the archive's end covers it; it is called in
        the event loop, as ``progress`` is, which hears the archive's bytes so far.

        ``on_checkpoint`` hears what another process needs to go on with a tar archive: give it there as
        ``resume_from``, with the same arguments, and as ``dest`` a file that has what was written, opened with mode
        "r+b" (it is read and compared), or a pipe for the rest. It is called in ``thread``, after what it covers was
        written and before anything else is, so it may sync the file. Without ``dest``, ask AsyncExport.

        Raises TypeError for what cannot be written to, ValueError for what cannot be continued, and whatever the
        destination and the listeners raise.
        """
        if keys is not None and prefix:
            raise ValueError("prefix and keys exclude each other: leave one of them out")
        if isinstance(keys, str):
            raise TypeError("keys are several: give a list of str")
        start = resume_from or BEGINNING
        if start.checkpoint_token and archive_format is ArchiveFormat.ZIP:
            raise ValueError("a zip archive cannot be continued: leave resume_from out")
        request = storage_pb2.ExportRequest(
            tenant_id=tenant, format=_ARCHIVE_FORMATS[archive_format], on_error=_ERROR_POLICIES[on_error]
        )
        if keys is None:
            request.prefix = prefix
        else:
            request.keys.CopyFrom(storage_pb2.ObjectKeys(keys=keys))
        exporter = Exporter(self._open.storage, self._retry, self._stall_timeout)
        exporting = exporter.begin(request, start)
        if dest is None:
            return AsyncExport(exporting, on_entry or _unheard)
        listeners = ExportListeners(on_entry or _unheard, on_checkpoint or _unheard, progress or _unheard)
        with _lent(thread) as writer:
            sink = await writer.run(partial(open_archive_sink, dest, start, overwrite=overwrite))
            return await exporter.write(exporting, sink, listeners, writer)

    async def stat(self, tenant: str, key: str, *, version_id: str = "") -> ObjectInfo:
        """Describe an object."""
        request = storage_pb2.StatRequest(tenant_id=tenant, key=key, version_id=version_id)
        return ObjectInfo.from_proto((await self._open.call(self._open.storage.Stat, request)).object)

    async def list(self, tenant: str, prefix: str = "", *, page_size: int = 0) -> AsyncGenerator[ObjectInfo, None]:
        """The tenant's objects whose keys start with ``prefix``, page by page in the service's order."""
        page = await self.list_page(tenant, prefix, page_size=page_size)
        while True:
            for info in page.objects:
                yield info
            if not page.next_page_token:
                return
            page = await self.list_page(tenant, prefix, page_size=page_size, page_token=page.next_page_token)

    async def list_page(self, tenant: str, prefix: str = "", *, page_size: int = 0, page_token: str = "") -> ObjectPage:
        """One page of ``list``; ``page_size`` is 1 to 1,000, or 0 for the service's choice."""
        request = storage_pb2.ListRequest(tenant_id=tenant, prefix=prefix, page_size=page_size, page_token=page_token)
        response = await self._open.call(self._open.storage.List, request)
        return ObjectPage(tuple(map(ObjectInfo.from_proto, response.objects)), response.next_page_token)

    async def delete(self, tenant: str, key: str, *, if_version_id: str = "", allow_missing: bool = False) -> None:
        """Remove an object, or only that version of it. A missing one is OBJECT_NOT_FOUND unless allowed."""
        request = storage_pb2.DeleteRequest(
            tenant_id=tenant, key=key, if_version_id=if_version_id, allow_missing=allow_missing
        )
        connection = self._open
        in_doubt = False

        async def attempt() -> None:
            nonlocal in_doubt
            try:
                await connection.call_once(connection.storage.Delete, request)
            except KeystowError as error:
                if in_doubt and is_object_not_found(error):
                    return  # an earlier attempt did it, and its answer was lost
                in_doubt = in_doubt or isinstance(error, TransportError) or error.code in _DOUBTFUL
                raise

        await retrying(attempt, self._retry, lambda error: error.recovery in FROM_THE_START)

    async def server_info(self) -> ServerInfo:
        """The server's version and limits."""
        info = await self._open.call(self._open.storage.GetServerInfo, storage_pb2.GetServerInfoRequest())
        return ServerInfo.from_proto(info)

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the client is not open: use it as a context manager")
        return self._connection


@contextmanager
def _lent(thread: TransferThread | None) -> Iterator[TransferThread]:
    if thread is not None:
        yield thread
    else:
        with OwnThread() as own:
            yield own


def _unheard(_: object) -> None:
    pass
