"""The date of a deletion that KMS told once is told on; that the deletion is still pending KMS itself must say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from keystow.v1.tenants_pb2 import (
    KEY_MANAGEMENT_SELF,
    KEY_STATE_DISABLED,
    KEY_STATE_ENABLED,
    KEY_STATE_PENDING_DELETION,
    CheckKeyRequest,
    GetTenantRequest,
    KeyHealth,
)
from rpc.wire import Failure, failure, put
from servers.in_process import DATA_CENTER, Server, register
from servers.kms.documents import denying, tenant_policy
from servers.kms.faults import Fault
from servers.kms.keys import Key
from servers.kms.principals import CUSTOMER_ACCOUNT
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"
SETTINGS = {"key_probe_interval": 3600, "lease_bound": 0}


@pytest_asyncio.fixture(loop_scope="session")
async def kms() -> AsyncIterator[FaithfulKms]:
    async with faithful_kms("us-east-1") as kms:
        yield kms


async def announced(server: Server, kms: FaithfulKms) -> tuple[Key, str]:
    """A tenant's key that is to be deleted, and refuses DescribeKey since that was told; and the date."""
    key = kms.create_key(TENANT)
    await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
    key.schedule_deletion(7)
    told = await refusal(server)
    assert told.reason == "KMS_KEY_PENDING_DELETION"
    key.put_policy(denying(key.standing.policy, "DescribeKey"))
    return key, deletion_time(told)


async def refusal(server: Server) -> Failure:
    return await failure(put(server, TENANT, "key", b"content"))


def deletion_time(told: Failure) -> str:
    assert told.metadata is not None
    return told.metadata["deletionTime"]


async def health(server: Server) -> KeyHealth:
    return (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant.key_health


async def test_a_key_that_is_no_longer_described(kms: FaithfulKms, tmp_path: Path) -> None:
    """The date stays in errors and in the tenant's health, and a process that has just started knows it, too."""
    async with serving_on_kms(kms, tmp_path, **SETTINGS) as server:
        _, date = await announced(server, kms)
        told = await refusal(server)
        assert (told.reason, deletion_time(told)) == ("KMS_KEY_PENDING_DELETION", date)
    async with serving_on_kms(kms, tmp_path, **SETTINGS) as server:
        told = await refusal(server)
        assert (told.reason, deletion_time(told)) == ("KMS_KEY_PENDING_DELETION", date)
        shown = await health(server)
        assert (shown.state, shown.HasField("deletion_time")) == (KEY_STATE_PENDING_DELETION, True)


async def test_a_deletion_that_was_cancelled(kms: FaithfulKms, tmp_path: Path) -> None:
    """KMS says that the key is disabled, and is believed, also where it does not describe the key any more."""
    async with serving_on_kms(kms, tmp_path, **SETTINGS) as server:
        key, _ = await announced(server, kms)
        key.cancel_deletion()
        for _ in range(2):
            assert (await refusal(server)).reason == "KMS_KEY_DISABLED"
            assert (await health(server)).state == KEY_STATE_DISABLED
            key.put_policy(tenant_policy(CUSTOMER_ACCOUNT, TENANT))
        key.enable()
        await put(server, TENANT, "key", b"content")
        assert (await health(server)).state == KEY_STATE_ENABLED


async def test_an_unheard_of_wording(kms: FaithfulKms, tmp_path: Path) -> None:
    """A refusal that does not say what it is about shows nothing of the key: what was announced stands untouched."""
    async with serving_on_kms(kms, tmp_path, **SETTINGS) as server:
        key, _ = await announced(server, kms)
        before = await health(server)
        kms.faults.fail_always(
            Fault("KMSInvalidStateException", f"{key.arn} is no more what it was."), "GenerateDataKey"
        )
        assert (await refusal(server)).reason == "KMS_KEY_TRANSITIONING"
        assert await health(server) == before


async def test_another_key_is_not_meant(kms: FaithfulKms, tmp_path: Path) -> None:
    """One that is tried for the same tenant, and is to be deleted as well, is not told with that date."""
    async with serving_on_kms(kms, tmp_path, **SETTINGS) as server:
        _, date = await announced(server, kms)
        other = kms.create_key(TENANT)
        other.schedule_deletion(30)
        other.put_policy(denying(other.standing.policy, "DescribeKey"))
        request = CheckKeyRequest(tenant_id=TENANT, kms_key_arn=other.arn, data_center=DATA_CENTER)
        checks = (await server.tenants.CheckKey(request)).checks
    [detail] = [check.detail for check in checks if check.name == "grant.generate"]
    assert "scheduled for deletion" in detail
    assert date[: len("2026-01-01")] not in detail
