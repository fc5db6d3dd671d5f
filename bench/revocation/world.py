"""What a trial runs against: a keystow server in a process of its own, and a KMS over HTTP whose keys can be turned."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keystow.v1.storage_pb2_grpc import StorageServiceStub
from keystow.v1.tenants_pb2_grpc import TenantServiceStub
from servers.in_process import NARROW_WINDOW, connected
from servers.keystow import KeystowServer, keystow_server
from servers.kms.principals import PROVIDER, PROVIDER_ACCOUNT
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms

if TYPE_CHECKING:  # these exist for type checkers only
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub
    from keystow.v1.tenants_pb2_grpc import TenantServiceAsyncStub

REGION = "us-east-1"
DATA_CENTER = "us"


@dataclass(slots=True)
class World:
    """Both of them, and channels to the server: slow readers have one of their own, with a small window."""

    kms: FaithfulKms
    server: KeystowServer
    storage: "StorageServiceAsyncStub"
    slow_storage: "StorageServiceAsyncStub"
    tenants: "TenantServiceAsyncStub"
    _read: int = 0
    _calls: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def calls(self, tenant_id: str) -> list[Mapping[str, Any]]:
        """What the server's log says of the tenant's calls that have ended."""
        lines = self.server.output[self._read :]
        self._read += len(lines)
        for line in lines:
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == "rpc":
                self._calls.setdefault(entry["tenant_id"], []).append(entry)
        return self._calls.get(tenant_id, [])


def handed_out_at(call: Mapping[str, Any]) -> float | None:
    """When the call's last plaintext was handed to the transport, in seconds since the epoch."""
    text = call["last_plaintext"]
    return datetime.fromisoformat(text).timestamp() if text else None


@asynccontextmanager
async def world(folder: Path, bound: float) -> AsyncIterator[World]:
    """Leases are fresh for half the ``bound``, in seconds. Objects go to ``folder``."""
    async with AsyncExitStack() as stack:
        kms = await stack.enter_async_context(faithful_kms(REGION))
        provider_key = kms.create_key("*", account=PROVIDER_ACCOUNT)
        settings = {
            "KEYSTOW_DEPLOYMENT_ID": "revocation",
            "KEYSTOW_BUFFER_BUDGET": str(4 << 30),  # no stream of a trial shall wait for another's buffers
            "KEYSTOW_LEASE_BOUND": str(bound),
            "KEYSTOW_LEASE_REFRESH": str(bound / 2),
            "KEYSTOW_DATA_CENTERS": json.dumps(
                {
                    DATA_CENTER: {
                        "region": REGION,
                        "provider_key_arn": provider_key.arn,
                        "kms_endpoint": kms.endpoints[REGION],
                    }
                }
            ),
        }
        server = stack.enter_context(keystow_server(folder, settings={**settings, **PROVIDER.environment}))
        channel = await stack.enter_async_context(connected(server.address))
        slow = await stack.enter_async_context(connected(server.address, NARROW_WINDOW))
        yield World(kms, server, StorageServiceStub(channel), StorageServiceStub(slow), TenantServiceStub(channel))
