"""The health of a key that nobody uses: found by the server's probes, kept in the registry, told after a restart."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keystow.v1.tenants_pb2 import (
    KEY_MANAGEMENT_SELF,
    KEY_STATE_ENABLED,
    KEY_STATE_PENDING_DELETION,
    GetTenantRequest,
    KeyHealth,
)
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from servers.in_process import Server, register, serving

TENANT = "acme"


@pytest.mark.asyncio(loop_scope="session")
async def test_a_deletion_is_announced(tmp_path: Path) -> None:
    """Without a backup or restore the tenant shows the date; the next process tells it at once, and the history too."""
    keyring = KeyringAdmin(tmp_path / "keyring" / "keyring.json", tmp_path / "keyring" / "root.key", SystemClock())
    async with serving(tmp_path, key_probe_interval=1, lease_refresh=0.1, lease_bound=30) as server:
        arn = keyring.create("us-east-1", tenants=[TENANT]).arn
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn.text)
        await register(server, "provided")
        await shown(server, KEY_STATE_ENABLED)
        scheduled = keyring.schedule_deletion(arn, days=7)
        found = await shown(server, KEY_STATE_PENDING_DELETION)
    async with serving(tmp_path, key_probe_interval=3600, lease_refresh=0.1, lease_bound=30) as server:
        told = await health(server)
        assert told == found
    assert scheduled.deletion_time is not None
    date = scheduled.deletion_time.replace(microsecond=0)
    assert told.deletion_time.ToDatetime(date.tzinfo) == date
    assert told.last_success_time.ToNanoseconds() < told.since_time.ToNanoseconds()
    assert told.reason == "KMS_KEY_PENDING_DELETION"
    changes = [json.loads(line) for line in key_history(tmp_path, TENANT, "--json").stdout.splitlines()]
    assert [change["state"] for change in changes] == ["ENABLED", "PENDING_DELETION"]
    assert changes[1]["deletion_time"] == date.isoformat()
    assert "no key of its own" in key_history(tmp_path, "provided").stderr
    nobody = key_history(tmp_path, "nobody")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "no such tenant" in nobody.stderr


def test_a_history_asked_for_in_the_wrong_place(tmp_path: Path) -> None:
    """Where no server has been there is no registry: that is said, and none is made."""
    done = key_history(tmp_path / "elsewhere", TENANT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no registry" in done.stderr
    assert "--config" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


async def health(server: Server) -> KeyHealth:
    return (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant.key_health


async def shown(server: Server, state: int) -> KeyHealth:
    """The key's health, as soon as it is in this state."""
    async with asyncio.timeout(60):
        while True:
            found = await health(server)
            if found.state == state:
                return found
            await asyncio.sleep(0.05)


def key_history(data_dir: Path, tenant: str, *options: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")}
    return subprocess.run(
        [sys.executable, "-m", "keystow_service", "tenants", "key-history", tenant, *options],
        env={**environment, "KEYSTOW_DATA_DIR": str(data_dir)},
        check=False,
        capture_output=True,
        text=True,
    )
