"""What check.sh does through the server in the container: with the image's own Python and stubs, for it has no client.

``store`` registers a tenant and stores two objects, one of several parts; ``fetch`` reads them and compares, also after
a restart; ``export`` does so through an archive. A second argument is the port, where it is not 50051.
"""

# ruff: noqa: T201 - a script that talks

import hashlib
import io
import sys
import tarfile
import uuid
from collections.abc import Iterator

import grpc

from keystow.v1.storage_pb2 import Chunk, ExportRequest, GetRequest, PutFinish, PutHeader, PutRequest, PutSmallRequest
from keystow.v1.storage_pb2_grpc import StorageServiceStub
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_PROVIDER, RegisterTenantRequest
from keystow.v1.tenants_pb2_grpc import TenantServiceStub

TENANT = "acme"
OBJECTS = {
    "documents/first": hashlib.shake_256(b"first").digest(1_500_000),
    "documents/second": hashlib.shake_256(b"second").digest(20_000_000),
}
SMALL, LARGE = OBJECTS
CHUNK = 1 << 20
TIMEOUT = 60  # seconds


def store(channel: grpc.Channel) -> None:
    """Register the tenant and store the objects."""
    TenantServiceStub(channel).RegisterTenant(
        RegisterTenantRequest(
            tenant_id=TENANT, data_center="us", key_management=KEY_MANAGEMENT_PROVIDER, confirm_permanent=True
        ),
        timeout=TIMEOUT,
    )
    storage = StorageServiceStub(channel)
    small = storage.PutSmall(PutSmallRequest(header=header(SMALL), data=OBJECTS[SMALL]), timeout=TIMEOUT)
    print(f"  PutSmall stored {small.object.size:,} bytes")
    *_, last = storage.Put(messages(LARGE), timeout=TIMEOUT)
    print(f"  Put stored {last.result.object.size:,} bytes")


def header(key: str) -> PutHeader:
    """Of a new upload."""
    return PutHeader(tenant_id=TENANT, key=key, upload_id=str(uuid.uuid4()))


def messages(key: str) -> Iterator[PutRequest]:
    """Of a whole Put."""
    data = OBJECTS[key]
    yield PutRequest(header=header(key))
    for start in range(0, len(data), CHUNK):
        yield PutRequest(chunk=Chunk(offset=start, data=data[start : start + CHUNK]))
    yield PutRequest(finish=PutFinish(size=len(data)))


def fetch(channel: grpc.Channel) -> None:
    """Read the objects, and compare."""
    for key, data in OBJECTS.items():
        responses = StorageServiceStub(channel).Get(GetRequest(tenant_id=TENANT, key=key), timeout=TIMEOUT)
        if b"".join(each.chunk.data for each in responses) != data:
            sys.exit(f"Get: the bytes of {key} differ")
        print(f"  Get read the same {len(data):,} bytes")


def export(channel: grpc.Channel) -> None:
    """Have all objects in one archive, and compare."""
    responses = StorageServiceStub(channel).Export(ExportRequest(tenant_id=TENANT, prefix=""), timeout=TIMEOUT)
    archive = b"".join(each.chunk.data for each in responses)
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for key, data in OBJECTS.items():
            member = members.extractfile(key)
            if member is None or member.read() != data:
                sys.exit(f"Export: the bytes of {key} differ")
    print(f"  Export wrote the same objects, a tar of {len(archive):,} bytes")


action, *port = sys.argv[1:]
with grpc.insecure_channel(
    f"127.0.0.1:{port[0] if port else 50051}", options=[("grpc.enable_http_proxy", 0)]
) as connection:
    {"store": store, "fetch": fetch, "export": export}[action](connection)
