"""The synchronous client: the asynchronous one, on an event loop in a thread of its own.

While a call waits, the calling thread does the transfer's blocking work (see threads.py), so that sources, destinations
and progress callbacks run where the caller expects them, and never in the loop. Threads may share one client.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Self, TypeVar, overload

from keystow_client.aio import DEFAULT_STALL_TIMEOUT, AsyncClient
from keystow_client.export import CheckpointListener, EntryListener
from keystow_client.export_models import (
    ArchiveFormat,
    ErrorPolicy,
    ExportCheckpoint,
    ExportSummary,
)
from keystow_client.iterators import Download, Export
from keystow_client.loop_thread import LoopThread
from keystow_client.models import ObjectInfo, ObjectPage, ServerInfo, UploadProgress, WriteMode
from keystow_client.put import DEFAULT_RESUME_BUFFER
from keystow_client.put_stream import Progress
from keystow_client.retry import DEFAULT_POLICY, RetryPolicy
from keystow_client.sinks import SinkLike
from keystow_client.sources import SourceLike
from keystow_client.sync_tenants import Tenants
from keystow_client.threads import TransferThread
from keystow_client.tls import Tls
from keystow_client.upload import ProgressListener

_T = TypeVar("_T")


class Client(Tenants):
    """keystow over one connection, for any number of threads. Use it as a context manager.

    The methods are AsyncClient's, which has their full descriptions. Not to be carried over a fork: open it after.
    """

    _client: AsyncClient

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: Tls | None = None,
        insecure: bool = False,
        retry: RetryPolicy = DEFAULT_POLICY,
        stall_timeout: float = DEFAULT_STALL_TIMEOUT,
    ) -> None:
        """As AsyncClient."""
        self._client = AsyncClient(address, tls=tls, insecure=insecure, retry=retry, stall_timeout=stall_timeout)
        self._loop_thread: LoopThread | None = None

    def __enter__(self) -> Self:
        """As AsyncClient, in a thread that it starts."""
        loop = LoopThread()
        try:
            loop.call(lambda _: self._client.__aenter__())
        except BaseException:
            loop.close()
            raise
        self._loop_thread = loop
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what still runs, the connection and the thread."""
        loop, self._loop_thread = self._loop, None
        loop.call(lambda _: self._client.__aexit__(None, None, None))
        loop.close()

    def put(
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
    ) -> ObjectInfo:
        """Store an object. Sources and callbacks run in this thread; an async iterable in the client's loop."""
        return self._loop.call(
            lambda caller: self._client.put(
                tenant,
                key,
                source,
                content_type=content_type,
                metadata=metadata,
                mode=mode,
                if_version_id=if_version_id,
                size=size,
                upload_id=upload_id,
                verify_sha256=verify_sha256,
                resumable=resumable,
                resume_buffer=resume_buffer,
                resume_from=resume_from,
                on_upload_progress=_heard_in(caller, on_upload_progress),
                progress=_heard_in(caller, progress),
                thread=caller,
            )
        )

    def abort_put(self, tenant: str, key: str, progress: UploadProgress) -> None:
        """Discard an unfinished upload. One that is unknown, or finished, is no failure."""
        self._loop.call(lambda _: self._client.abort_put(tenant, key, progress))

    @overload
    def get(
        self, tenant: str, key: str, *, offset: int = 0, length: int | None = None, version_id: str = ""
    ) -> Download: ...

    @overload
    def get(
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
    ) -> ObjectInfo: ...

    def get(
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
    ) -> Download | ObjectInfo:
        """Fetch an object or a range of it, without ``dest`` as a Download. Files are written in this thread."""
        if dest is None:
            download = self._loop.call(
                lambda _: self._client.get(tenant, key, offset=offset, length=length, version_id=version_id)
            )
            return Download(download, self._loop)
        return self._loop.call(
            lambda caller: self._client.get(
                tenant,
                key,
                dest,
                offset=offset,
                length=length,
                version_id=version_id,
                overwrite=overwrite,
                progress=_heard_in(caller, progress),
                thread=caller,
            )
        )

    @overload
    def export(
        self,
        tenant: str,
        *,
        prefix: str = "",
        keys: Iterable[str] | None = None,
        archive_format: ArchiveFormat = ArchiveFormat.TAR,
        on_error: ErrorPolicy = ErrorPolicy.STOP,
        resume_from: ExportCheckpoint | None = None,
        on_entry: EntryListener | None = None,
    ) -> Export: ...

    @overload
    def export(
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
    ) -> ExportSummary: ...

    def export(
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
    ) -> Export | ExportSummary:
        """Export many objects as one archive, without ``dest`` as an Export. Files and callbacks run in this thread."""
        chosen = (
            keys if keys is None or isinstance(keys, str) else list(keys)
        )  # here: it may be this thread's generator
        if dest is None:
            return Export(
                lambda listener: self._loop.call(
                    lambda _: self._client.export(
                        tenant,
                        prefix=prefix,
                        keys=chosen,
                        archive_format=archive_format,
                        on_error=on_error,
                        resume_from=resume_from,
                        on_entry=listener,
                    )
                ),
                on_entry,
                self._loop,
            )
        return self._loop.call(
            lambda caller: self._client.export(
                tenant,
                dest,
                prefix=prefix,
                keys=chosen,
                archive_format=archive_format,
                on_error=on_error,
                resume_from=resume_from,
                on_entry=_heard_in(caller, on_entry),
                on_checkpoint=on_checkpoint,
                overwrite=overwrite,
                progress=_heard_in(caller, progress),
                thread=caller,
            )
        )

    def stat(self, tenant: str, key: str, *, version_id: str = "") -> ObjectInfo:
        """Describe an object."""
        return self._loop.call(lambda _: self._client.stat(tenant, key, version_id=version_id))

    def list(self, tenant: str, prefix: str = "", *, page_size: int = 0) -> Iterator[ObjectInfo]:
        """The tenant's objects whose keys start with ``prefix``, page by page in the service's order."""
        page = self.list_page(tenant, prefix, page_size=page_size)
        while True:
            yield from page.objects
            if not page.next_page_token:
                return
            page = self.list_page(tenant, prefix, page_size=page_size, page_token=page.next_page_token)

    def list_page(self, tenant: str, prefix: str = "", *, page_size: int = 0, page_token: str = "") -> ObjectPage:
        """One page of ``list``."""
        return self._loop.call(
            lambda _: self._client.list_page(tenant, prefix, page_size=page_size, page_token=page_token)
        )

    def delete(self, tenant: str, key: str, *, if_version_id: str = "", allow_missing: bool = False) -> None:
        """Remove an object, or only that version of it."""
        self._loop.call(
            lambda _: self._client.delete(tenant, key, if_version_id=if_version_id, allow_missing=allow_missing)
        )

    def server_info(self) -> ServerInfo:
        """The server's version and limits."""
        return self._loop.call(lambda _: self._client.server_info())

    @property
    def _loop(self) -> LoopThread:
        if self._loop_thread is None:
            raise RuntimeError("the client is not open: use it as a context manager")
        return self._loop_thread


def _heard_in(caller: TransferThread, callback: Callable[[_T], object] | None) -> Callable[[_T], object] | None:
    """The callback, called in the calling thread."""
    return None if callback is None else lambda heard: caller.post(partial(callback, heard))
