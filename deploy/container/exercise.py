"""What check.sh does through the server in the container: with the image's own Python and stubs, for it has no client.

``store`` registers a tenant and stores an object; ``fetch`` reads it and compares, also after a restart.
"""

# ruff: noqa: INP001, T201 - a script that talks

import hashlib
import sys
import uuid

import grpc

from keystow.v1.storage_pb2 import GetRequest, PutHeader, PutSmallRequest
from keystow.v1.storage_pb2_grpc import StorageServiceStub
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_PROVIDER, RegisterTenantRequest
from keystow.v1.tenants_pb2_grpc import TenantServiceStub

TENANT, KEY = "acme", "documents/first"
DATA = hashlib.shake_256(b"keystow").digest(1_500_000)
TIMEOUT = 30  # seconds


def store(channel: grpc.Channel) -> None:
    """Register the tenant and store the object."""
    TenantServiceStub(channel).RegisterTenant(
        RegisterTenantRequest(
            tenant_id=TENANT, data_center="us", key_management=KEY_MANAGEMENT_PROVIDER, confirm_permanent=True
        ),
        timeout=TIMEOUT,
    )
    header = PutHeader(tenant_id=TENANT, key=KEY, upload_id=str(uuid.uuid4()))
    answer = StorageServiceStub(channel).PutSmall(PutSmallRequest(header=header, data=DATA), timeout=TIMEOUT)
    print(f"  PutSmall stored {answer.object.size:,} bytes")


def fetch(channel: grpc.Channel) -> None:
    """Read the object, and compare."""
    responses = StorageServiceStub(channel).Get(GetRequest(tenant_id=TENANT, key=KEY), timeout=TIMEOUT)
    data = b"".join(each.chunk.data for each in responses)
    if data != DATA:
        sys.exit("Get: the bytes differ")
    print(f"  Get read the same {len(data):,} bytes")


with grpc.insecure_channel("127.0.0.1:50051", options=[("grpc.enable_http_proxy", 0)]) as connection:
    {"store": store, "fetch": fetch}[sys.argv[1]](connection)
