"""What Prometheus is told: what happened, by method and reason, and the names of nobody."""

import asyncio
import re
import shutil
import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from keystow.v1.storage_pb2 import GetServerInfoRequest
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.app import StartError
from rpc.wire import failure, get, put, refused
from servers.in_process import register, serving

TENANT, KEY = "canary-tenant", "canary-object"


@pytest.mark.asyncio(loop_scope="session")
async def test_what_happened_is_counted(tmp_path: Path) -> None:
    """Calls, bytes, requests to KMS and refused keys; no label names a tenant, an object or a key."""
    keyring = KeyringAdmin(tmp_path / "keyring" / "keyring.json", tmp_path / "keyring" / "root.key", SystemClock())
    settings = {"metrics_listen": "127.0.0.1:0", "lease_refresh": 0.05, "lease_bound": 30, "key_probe_interval": 3600}
    with capture_logs() as log:
        async with serving(tmp_path, **settings) as server:
            [address] = [line["address"] for line in log if line["event"] == "serving_metrics"]
            arn = keyring.create("us-east-1", tenants=[TENANT]).arn
            await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn.text)
            await put(server, TENANT, KEY, b"x" * 1000)
            await get(server, TENANT, KEY, length=200)
            keyring.disable(arn)
            refusal = await refused(lambda: get(server, TENANT, KEY))
            await told(address, "keystow_rpcs_under_way{}", 0)  # clients know of the end first
            text, found = metrics(address)
            keyring.enable(arn)
            await get(server, TENANT, KEY)
            after = await told(address, 'keystow_key_state_changes_total{state="ENABLED"}', 1)
    assert refusal.reason == "KMS_KEY_DISABLED"
    assert found['keystow_rpcs_total{code="OK",method="Put",reason=""}'] == 1
    assert found['keystow_rpcs_total{code="FAILED_PRECONDITION",method="Get",reason="KMS_KEY_DISABLED"}'] == 1
    assert found['keystow_plaintext_bytes_total{direction="in"}'] == 1000
    assert found['keystow_plaintext_bytes_total{direction="out"}'] >= 200
    assert found['keystow_kms_requests_total{operation="Decrypt",reason="KMS_KEY_DISABLED"}'] >= 1
    assert found['keystow_kms_seconds_count{operation="GenerateDataKey"}'] >= 1
    assert found['keystow_refused_keys{state="DISABLED"}'] == 1
    assert found["keystow_buffer_bytes{}"] == 0
    assert found["keystow_audit_records_lost{}"] == 0
    assert after['keystow_refused_keys{state="DISABLED"}'] == 0
    assert not re.search("canary|arn:", text)


@pytest.mark.asyncio(loop_scope="session")
async def test_what_was_not_begun_is_counted(tmp_path: Path) -> None:
    """A server that refuses what it cannot record shows it: such calls leave no record, and are no calls elsewhere."""
    with capture_logs() as log:
        async with serving(tmp_path, metrics_listen="127.0.0.1:0", audit_on_failure="refuse") as server:
            [address] = [line["address"] for line in log if line["event"] == "serving_metrics"]
            assert metrics(address)[1]["keystow_audit_refusals_total{}"] == 0
            shutil.rmtree(tmp_path / "audit")
            for _ in range(3):  # the first finds it out
                told = await failure(server.storage.GetServerInfo(GetServerInfoRequest()))
                assert told.reason == "AUDIT_UNAVAILABLE"
            assert metrics(address)[1]["keystow_audit_refusals_total{}"] == 2


@pytest.mark.asyncio(loop_scope="session")
async def test_by_default_nobody_is_told(tmp_path: Path) -> None:
    """Without the setting no port is opened; one that is taken is said before the server starts."""
    with capture_logs() as log:
        async with serving(tmp_path):
            pass
    assert "serving_metrics" not in [line["event"] for line in log]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"cannot listen on {address} for metrics"):
            async with serving(tmp_path, metrics_listen=address):
                pass


async def told(address: str, name: str, value: float) -> Mapping[str, float]:
    """All samples, as soon as that one has the value."""
    async with asyncio.timeout(30):
        while True:
            _, found = metrics(address)
            if found.get(name) == value:
                return found
            await asyncio.sleep(0.01)


def metrics(address: str) -> tuple[str, Mapping[str, float]]:
    """The text, and each sample by its name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return text, {f"{each.name}{{{labels(each.labels)}}}": each.value for each in samples}


def labels(pairs: Mapping[str, str]) -> str:
    """As Prometheus writes them, in order."""
    return ",".join(f'{name}="{value}"' for name, value in sorted(pairs.items()))
