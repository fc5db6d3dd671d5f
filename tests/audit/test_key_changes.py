"""What becomes of a key, as the audit log and the registry's history tell it: each change once."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from audit.writing import entries_of
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF, KEY_STATE_ACCESS_DENIED, GetTenantRequest
from keystow_service.adapters.registry import open_registry
from keystow_service.model import TenantId
from rpc.wire import failure, get, put
from servers.in_process import register
from servers.kms.documents import denying
from servers.kms.server import faithful_kms
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"


async def test_a_key_that_restores_only(tmp_path: Path) -> None:
    """Backups are refused while restores work: the key's health says so, and its story does not grow with the calls."""
    async with (
        faithful_kms("us-east-1") as kms,
        serving_on_kms(kms, tmp_path, lease_bound=0, key_probe_interval=3600) as server,
    ):
        key = kms.create_key(TENANT)
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        await put(server, TENANT, "key", b"content")
        policy = key.standing.policy
        key.put_policy(denying(policy, "GenerateDataKey"))
        for _ in range(3):
            assert (await failure(put(server, TENANT, "another", b"content"))).reason == "KMS_ACCESS_DENIED"
            await get(server, TENANT, "key")
        health = (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant.key_health
        assert health.state == KEY_STATE_ACCESS_DENIED
        key.put_policy(policy.text)
        await put(server, TENANT, "another", b"content")
    assert audited(tmp_path) == [("ENABLED", "ACCESS_DENIED"), ("ACCESS_DENIED", "ENABLED")]
    assert await history(tmp_path) == ["ENABLED", "ACCESS_DENIED", "ENABLED"]


async def test_a_change_across_a_restart(tmp_path: Path) -> None:
    """A key that was refused to one process and works for the next one is told to do so."""
    async with faithful_kms("us-east-1") as kms:
        key = kms.create_key(TENANT)
        async with serving_on_kms(kms, tmp_path, key_probe_interval=3600) as server:
            await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
            key.disable()
            assert (await failure(put(server, TENANT, "key", b"content"))).reason == "KMS_KEY_DISABLED"
        key.enable()
        async with serving_on_kms(kms, tmp_path, key_probe_interval=3600) as server:
            await put(server, TENANT, "key", b"content")
    assert sorted(audited(tmp_path)) == [("", "DISABLED"), ("DISABLED", "ENABLED")]
    assert await history(tmp_path) == ["DISABLED", "ENABLED"]


def audited(data_dir: Path) -> Sequence[tuple[str, str]]:
    """What the audit log says of changes: from which state to which."""
    return [(entry["previous"], entry["key_state"]) for entry in entries_of(data_dir / "audit", "key_state")]


async def history(data_dir: Path) -> Sequence[str]:
    """What the registry remembers."""
    async with open_registry(f"sqlite+aiosqlite:///{data_dir}/registry.db") as registry:
        return [seen.state.value for seen in await registry.key_health.changes(TenantId(TENANT))]
