"""A real gRPC server in a thread: an honest keystow in memory, until a test scripts the next call of a method.

Honest means what the contract says of the good path and of the failures that clients act on; encryption and storage are
not its business. A scripted step handles one whole call instead; it may fall back on the honest one.
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self, cast

import google_crc32c
import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from client.scripted_export import export_responses
from keystow.v1 import storage_pb2 as pb
from keystow.v1 import tenants_pb2 as tenants

MIB = 1 << 20

Context = grpc.aio.ServicerContext[Any, Any]
Step = Callable[[Any, Context], Awaitable[Any]]


@dataclass(frozen=True)
class Stored:
    """One object of the honest server."""

    info: pb.ObjectInfo
    data: bytes
    header: pb.PutHeader

    @property
    def upload_id(self) -> str:
        """Whose upload it is."""
        return self.header.upload_id


@dataclass
class Upload:
    """An upload of the honest server: what has come, and how much of it outlives its stream."""

    header: pb.PutHeader
    data: bytearray = field(default_factory=bytearray)
    persisted: int = 0


def details(
    code: grpc.StatusCode,
    reason: str,
    recovery: str,
    *more: Message,
    domain: str = "keystow",
    message: str = "What to do.",
    metadata: Mapping[str, str] | None = None,
) -> status_pb2.Status:
    """A status as the service sends it."""
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain=domain, metadata={"recovery": recovery, "requestId": "r-1", **(metadata or {})}
    )
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (info, *more):
        status.details.add().Pack(detail)
    return status


async def abort(context: Context, code: grpc.StatusCode, status: status_pb2.Status) -> NoReturn:
    """End a call with a rich status."""
    await context.abort(code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))


def fail(code: grpc.StatusCode, reason: str, recovery: str, *more: Message, **kwargs: Any) -> Step:
    """A step that fails as the service does."""

    async def step(_: Any, context: Context) -> None:
        await abort(context, code, details(code, reason, recovery, *more, **kwargs))

    return step


def fail_bare(code: grpc.StatusCode, *trailers: tuple[str, bytes]) -> Step:
    """A step that fails as a proxy does, or with the given trailing metadata."""

    async def step(_: Any, context: Context) -> None:
        await context.abort(code, "bare", trailers)

    return step


def answer_get(*responses: pb.GetResponse) -> Step:
    """A step that sends these messages and ends well."""

    async def step(_: Any, context: Context) -> None:
        for response in responses:
            await context.write(response)

    return step


class Storage:
    """See the module."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Stored] = {}
        self.script: dict[str, deque[Step]] = defaultdict(deque)
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.uploads: dict[str, Upload] = {}
        self.part_size = MIB
        self.page_size = 1000
        self.versions = 0

    def next(self, method: str, *steps: Step) -> None:
        """Script the next calls of a method."""
        self.script[method].extend(steps)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What the server serves."""

        def scripted(method: str, honest: Step) -> Any:
            async def handle(request: Any, context: Context) -> Any:
                self.requests[method].append(request)
                step = self.script[method].popleft() if self.script[method] else honest
                return await step(request, context)

            return handle

        return grpc.method_handlers_generic_handler(
            "keystow.v1.StorageService",
            {
                "Put": grpc.stream_stream_rpc_method_handler(
                    scripted("Put", self.put), pb.PutRequest.FromString, pb.PutResponse.SerializeToString
                ),
                "PutSmall": grpc.unary_unary_rpc_method_handler(
                    scripted("PutSmall", self.put_small),
                    pb.PutSmallRequest.FromString,
                    pb.PutSmallResponse.SerializeToString,
                ),
                "AbortPut": grpc.unary_unary_rpc_method_handler(
                    scripted("AbortPut", self.abort_put),
                    pb.AbortPutRequest.FromString,
                    pb.AbortPutResponse.SerializeToString,
                ),
                "Get": grpc.unary_stream_rpc_method_handler(
                    scripted("Get", self.get), pb.GetRequest.FromString, pb.GetResponse.SerializeToString
                ),
                "Export": grpc.unary_stream_rpc_method_handler(
                    scripted("Export", self.export), pb.ExportRequest.FromString, pb.ExportResponse.SerializeToString
                ),
                "Stat": grpc.unary_unary_rpc_method_handler(
                    scripted("Stat", self.stat), pb.StatRequest.FromString, pb.StatResponse.SerializeToString
                ),
                "List": grpc.unary_unary_rpc_method_handler(
                    scripted("List", self.list), pb.ListRequest.FromString, pb.ListResponse.SerializeToString
                ),
                "Delete": grpc.unary_unary_rpc_method_handler(
                    scripted("Delete", self.delete), pb.DeleteRequest.FromString, pb.DeleteResponse.SerializeToString
                ),
                "GetServerInfo": grpc.unary_unary_rpc_method_handler(
                    scripted("GetServerInfo", self.get_server_info),
                    pb.GetServerInfoRequest.FromString,
                    pb.GetServerInfoResponse.SerializeToString,
                ),
            },
        )

    # --- The honest server --------------------------------------------------------------------------------------------

    async def put(self, _: Any, context: Context) -> None:
        """Store what is streamed; with a resume token, after what earlier streams left."""
        header = (await context.read()).header
        self.requests["header"].append(header)
        upload = await self.begin(header, context)
        while (request := await context.read()).HasField("chunk"):
            chunk = request.chunk
            self.requests["chunk"].append((chunk.offset, len(chunk.data), chunk.HasField("crc32c")))
            assert chunk.offset == len(upload.data)
            assert not chunk.data or chunk.crc32c == google_crc32c.value(chunk.data)
            upload.data += chunk.data
            await self.report(upload, context)
        self.requests["finish"].append(request.finish)
        assert request.finish.size == len(upload.data)
        assert request.finish.crc32c == google_crc32c.value(bytes(upload.data))
        info = await self.store(upload.header, bytes(upload.data), context)
        self.uploads.pop(upload.header.upload_id, None)
        if header.verify_sha256:
            info.sha256 = request.finish.sha256
        await context.write(pb.PutResponse(result=pb.PutResult(object=info)))

    async def begin(self, header: pb.PutHeader, context: Context) -> Upload:
        """A new upload, or what is persisted of the one that a token names."""
        if not header.resume_token:
            upload = Upload(header)
            if header.resumable:
                assert not header.verify_sha256
                self.uploads[header.upload_id] = upload
                await self.report(upload, context, first=True)
            return upload
        assert header == pb.PutHeader(
            tenant_id=header.tenant_id,
            key=header.key,
            upload_id=header.upload_id,
            resume_token=header.resume_token,
            resumable=True,
        )
        upload_id, _, persisted = header.resume_token.decode().partition("@")
        stored = self.objects.get((header.tenant_id, header.key))
        if stored and stored.upload_id == upload_id:  # committed, and the answer got lost
            return Upload(stored.header, bytearray(stored.data[: int(persisted)]))
        if upload_id not in self.uploads:
            code = grpc.StatusCode.ABORTED
            await abort(context, code, details(code, "UPLOAD_EXPIRED", "restart"))
        upload = self.uploads[upload_id]
        upload.persisted = int(persisted)
        del upload.data[upload.persisted :]
        await self.report(upload, context, first=True)
        return upload

    async def report(self, upload: Upload, context: Context, *, first: bool = False) -> None:
        """Tell of full parts; one is full when a further byte has come."""
        persisted = max(0, len(upload.data) - 1) // self.part_size * self.part_size
        if not upload.header.resumable or (persisted <= upload.persisted and not first):
            return
        upload.persisted = max(persisted, upload.persisted)
        progress = pb.UploadProgress(persisted_size=upload.persisted)
        progress.resume_token = f"{upload.header.upload_id}@{upload.persisted}".encode()
        progress.expire_time.FromSeconds(4_000_000_000)
        await context.write(pb.PutResponse(progress=progress))

    async def abort_put(self, request: pb.AbortPutRequest, _: Context) -> pb.AbortPutResponse:
        """Forget an unfinished upload."""
        self.uploads.pop(request.upload_id, None)
        return pb.AbortPutResponse()

    async def put_small(self, request: pb.PutSmallRequest, context: Context) -> pb.PutSmallResponse:
        """Store one message's bytes."""
        assert request.crc32c == google_crc32c.value(request.data)
        return pb.PutSmallResponse(object=await self.store(request.header, request.data, context))

    def add(self, key: str, data: bytes) -> None:
        """Have acme's object, without a call."""
        self.versions += 1
        crc32c = google_crc32c.value(data)
        info = pb.ObjectInfo(tenant_id="acme", key=key, version_id=f"v{self.versions}", size=len(data), crc32c=crc32c)
        self.objects["acme", key] = Stored(info, data, pb.PutHeader())

    async def store(self, header: pb.PutHeader, data: bytes, context: Context) -> pb.ObjectInfo:
        """Commit, if the header's condition holds."""
        place = (header.tenant_id, header.key)
        existing = self.objects.get(place)
        if existing and existing.upload_id == header.upload_id:
            return existing.info
        if existing and header.write_mode != pb.WRITE_MODE_OVERWRITE and not header.if_version_id:
            code = grpc.StatusCode.ALREADY_EXISTS
            await abort(context, code, details(code, "OBJECT_EXISTS", "none"))
        if header.if_version_id and (not existing or existing.info.version_id != header.if_version_id):
            code = grpc.StatusCode.FAILED_PRECONDITION
            await abort(context, code, details(code, "VERSION_MISMATCH", "none"))
        self.versions += 1
        info = pb.ObjectInfo(
            tenant_id=header.tenant_id,
            key=header.key,
            version_id=f"v{self.versions}",
            size=len(data),
            stored_size=len(data) + 100,
            crc32c=google_crc32c.value(data),
            content_type=header.content_type,
            metadata=header.metadata,
            kms_key_arn="arn:aws:kms:us-east-1:111122223333:key/1",
        )
        info.create_time.FromSeconds(1_700_000_000)
        self.objects[place] = Stored(info, data, header)
        return info

    async def find(self, request: Any, context: Context) -> Stored:
        """The object that a request names."""
        stored = self.objects.get((request.tenant_id, request.key))
        if stored is None:
            code = grpc.StatusCode.NOT_FOUND
            await abort(context, code, details(code, "OBJECT_NOT_FOUND", "none", metadata={"objectKey": request.key}))
        if getattr(request, "version_id", "") not in ("", stored.info.version_id):
            code = grpc.StatusCode.ABORTED
            await abort(context, code, details(code, "OBJECT_CHANGED", "restart"))
        return stored

    async def get(self, request: pb.GetRequest, context: Context) -> None:
        """Send the range asked for."""
        for response in get_responses(await self.find(request, context), request):
            await context.write(response)

    async def export(self, request: pb.ExportRequest, context: Context) -> None:
        """Send the archive, or the rest of it."""
        for response in export_responses([(each.info, each.data) for each in self.objects.values()], request):
            await context.write(response)

    async def stat(self, request: pb.StatRequest, context: Context) -> pb.StatResponse:
        """Describe."""
        return pb.StatResponse(object=(await self.find(request, context)).info)

    async def list(self, request: pb.ListRequest, _: Context) -> pb.ListResponse:
        """A page, after the key in the token."""
        keys = sorted(
            key
            for tenant, key in self.objects
            if tenant == request.tenant_id and key.startswith(request.prefix) and key > request.page_token
        )
        size = request.page_size or self.page_size
        response = pb.ListResponse(next_page_token=keys[size - 1] if len(keys) > size else "")
        for key in keys[:size]:
            info = self.objects[request.tenant_id, key].info
            response.objects.add(
                tenant_id=info.tenant_id,
                key=key,
                version_id=info.version_id,
                size=info.size,
                create_time=info.create_time,
            )
        return response

    async def delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        """Remove."""
        if not request.allow_missing:
            await self.find(request, context)
        self.objects.pop((request.tenant_id, request.key), None)
        return pb.DeleteResponse()

    async def get_server_info(self, _: Any, __: Context) -> pb.GetServerInfoResponse:
        """Some limits."""
        return pb.GetServerInfoResponse(version="1.2.3", max_chunk_size=2 * MIB, features=["retention"])


def get_responses(stored: Stored, request: pb.GetRequest) -> list[pb.GetResponse]:
    """What an honest server answers a Get."""
    size = len(stored.data)
    offset = request.offset if request.offset >= 0 else max(0, size + request.offset)
    length = min(request.length, size - offset) if request.HasField("length") else size - offset
    served = stored.data[offset : offset + length]
    responses = [pb.GetResponse(header=pb.GetHeader(object=stored.info, offset=offset, length=length))]
    for start in range(0, length, MIB):
        data = served[start : start + MIB]
        chunk = pb.Chunk(offset=offset + start, data=data, crc32c=google_crc32c.value(data))
        responses.append(pb.GetResponse(chunk=chunk))
    responses.append(pb.GetResponse(finish=pb.GetFinish(crc32c=google_crc32c.value(served))))
    return responses


class Tenants:
    """Tenants in memory."""

    def __init__(self) -> None:
        self.tenants: dict[str, tenants.Tenant] = {}
        self.requests: list[tenants.RegisterTenantRequest] = []

    def handlers(self) -> grpc.GenericRpcHandler:
        """What the server serves."""
        return grpc.method_handlers_generic_handler(
            "keystow.v1.TenantService",
            {
                "RegisterTenant": grpc.unary_unary_rpc_method_handler(
                    cast("Any", self.register),
                    tenants.RegisterTenantRequest.FromString,
                    tenants.RegisterTenantResponse.SerializeToString,
                ),
                "GetTenant": grpc.unary_unary_rpc_method_handler(
                    cast("Any", self.get),
                    tenants.GetTenantRequest.FromString,
                    tenants.GetTenantResponse.SerializeToString,
                ),
                "ListTenants": grpc.unary_unary_rpc_method_handler(
                    cast("Any", self.list),
                    tenants.ListTenantsRequest.FromString,
                    tenants.ListTenantsResponse.SerializeToString,
                ),
                "ListDataCenters": grpc.unary_unary_rpc_method_handler(
                    cast("Any", self.list_data_centers),
                    tenants.ListDataCentersRequest.FromString,
                    tenants.ListDataCentersResponse.SerializeToString,
                ),
            },
        )

    async def register(self, request: tenants.RegisterTenantRequest, _: Context) -> tenants.RegisterTenantResponse:
        """Register, whatever it is."""
        self.requests.append(request)
        tenant = tenants.Tenant(
            tenant_id=request.tenant_id,
            display_name=request.display_name,
            key_management=request.key_management,
            kms_key_arn=request.kms_key_arn or "arn:aws:kms:us-east-1:111122223333:key/1",
            data_center=request.data_center,
        )
        tenant.create_time.FromSeconds(1_700_000_000)
        self.tenants[request.tenant_id] = tenant
        check = tenants.KeyCheck(name="key.region", outcome=tenants.KeyCheck.OUTCOME_PASSED, detail="Same region.")
        return tenants.RegisterTenantResponse(tenant=tenant, checks=[check])

    async def get(self, request: tenants.GetTenantRequest, context: Context) -> tenants.GetTenantResponse:
        """One of them."""
        if request.tenant_id not in self.tenants:
            code = grpc.StatusCode.NOT_FOUND
            await abort(context, code, details(code, "TENANT_NOT_FOUND", "none"))
        return tenants.GetTenantResponse(tenant=self.tenants[request.tenant_id])

    async def list(self, request: tenants.ListTenantsRequest, _: Context) -> tenants.ListTenantsResponse:
        """All of them, one a page."""
        left = sorted(name for name in self.tenants if name > request.page_token)
        return tenants.ListTenantsResponse(
            tenants=[self.tenants[name] for name in left[:1]], next_page_token=left[0] if len(left) > 1 else ""
        )

    async def list_data_centers(self, _: Any, __: Context) -> tenants.ListDataCentersResponse:
        """One."""
        return tenants.ListDataCentersResponse(
            data_centers=[tenants.DataCenter(name="us", display_name="United States", region="us-east-1")]
        )


class ScriptedServer:
    """The server, on a free loopback port, in a thread with its own event loop; with credentials in TLS."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self.storage = Storage()
        self.tenants = Tenants()
        self.port = 0
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="scripted-server")

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 5 * MIB)))
        server.add_generic_rpc_handlers((self.storage.handlers(), self.tenants.handlers()))
        if self._credentials is None:
            self.port = server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = server.add_secure_port("127.0.0.1:0", self._credentials)
        await server.start()
        self._started.set()
        await self._stop.wait()
        await server.stop(0)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
