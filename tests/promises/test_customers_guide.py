"""What the product's guide promises customers about their keys: a test for each promise, in the guide's order.

The service runs as in production, on S3 and KMS; the customer's key is in another account than the service.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from keystow.v1.storage_pb2 import ListRequest
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_PROVIDER, KEY_MANAGEMENT_SELF, GetTenantRequest
from keystow_service.envelope import header as object_header
from keystow_service.envelope.layout import HEADER_LENGTH
from promises.customer import TENANT, Aws, Customer, aws, customer
from rpc.interrupted import PART, interrupted
from rpc.wire import MIB, content, failure
from servers.in_process import register
from servers.kms.documents import denying
from servers.kms.keys import Kind
from servers.kms.log import cloudtrail
from servers.kms.principals import CUSTOMER_ACCOUNT
from servers.moto import MotoServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEPT = content(MIB + 1, "kept")


@pytest_asyncio.fixture(loop_scope="session")
async def on_aws(moto: MotoServer, tmp_path: Path) -> AsyncIterator[Aws]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with aws(moto, tmp_path, monkeypatch) as surroundings:
            yield surroundings


@pytest_asyncio.fixture(loop_scope="session")
async def acme(on_aws: Aws) -> AsyncIterator[Customer]:
    """With one object backed up."""
    async with on_aws.serving() as server:
        acme = await customer(on_aws, server)
        await acme.back_up("kept", KEPT)
        yield acme


async def test_provider_managed_or_self_managed_keys_a_permanent_choice_confirmed(on_aws: Aws) -> None:
    """Without confirmation nothing is registered; what is registered never changes, in no process."""
    async with on_aws.serving() as server:
        unconfirmed = await failure(register(server, TENANT, confirm_permanent=False))
        assert (unconfirmed.reason, unconfirmed.violations) == ("REQUEST_INVALID", ("confirm_permanent",))
        acme = await customer(on_aws, server)
        await register(server, "globex", key_management=KEY_MANAGEMENT_PROVIDER)
    other = on_aws.kms.create_key(TENANT, "globex")
    async with on_aws.serving() as server:
        for tenant_id, choice in (
            (TENANT, {"key_management": KEY_MANAGEMENT_PROVIDER}),
            (TENANT, {"key_management": KEY_MANAGEMENT_SELF, "kms_key_arn": other.arn}),
            ("globex", {"key_management": KEY_MANAGEMENT_SELF, "kms_key_arn": other.arn}),
        ):
            assert (await failure(register(server, tenant_id, **choice))).reason == "TENANT_EXISTS"
        stands = (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant
        assert (stands.key_management, stands.kms_key_arn) == (KEY_MANAGEMENT_SELF, acme.key.arn)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (Kind(spec="RSA_2048"), "{arn}", "KMS_KEY_UNUSABLE"),
        (Kind(spec="HMAC_256", usage="GENERATE_VERIFY_MAC"), "{arn}", "KMS_KEY_UNUSABLE"),
        (Kind(spec="ECC_NIST_P256", usage="SIGN_VERIFY"), "{arn}", "KMS_KEY_UNUSABLE"),
        (Kind(), "arn:aws:kms:us-east-1:111122223333:alias/backups", "KMS_KEY_ARN_INVALID"),
        (Kind(), "{id}", "KMS_KEY_ARN_INVALID"),
        (Kind(), "arn:aws-cn:kms:us-east-1:111122223333:key/{id}", "KMS_KEY_ARN_INVALID"),
    ],
)
async def test_a_symmetric_key_pasted_as_its_full_arn(on_aws: Aws, kind: Kind, name: str, reason: str) -> None:
    """Other kinds of keys and other names of keys are refused, and nothing is registered."""
    key = on_aws.kms.create_key(TENANT, kind=kind)
    async with on_aws.serving() as server:
        arn = name.format(arn=key.arn, id=key.key_id)
        choice = {"key_management": KEY_MANAGEMENT_SELF, "kms_key_arn": arn}
        assert (await failure(register(server, TENANT, **choice))).reason == reason
        unknown = await failure(server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT)))
        assert unknown.reason == "TENANT_NOT_FOUND"


async def test_the_providers_aws_account_is_granted_the_key(on_aws: Aws) -> None:
    """The grant is proven by use before anything is registered: each of its operations, with the tenant's context."""
    async with on_aws.serving() as server:
        for withheld in ("GenerateDataKey", "Decrypt"):
            key = on_aws.kms.create_key(TENANT)
            key.put_policy(denying(key.standing.policy, withheld))
            choice = {"key_management": KEY_MANAGEMENT_SELF, "kms_key_arn": key.arn}
            assert (await failure(register(server, TENANT, **choice))).reason == "KMS_KEY_UNUSABLE"
        granted = await customer(on_aws, server)
    used = {(each.operation, each.answer) for each in on_aws.kms.requests if each.key_arn == granted.key.arn}
    assert {("GenerateDataKey", "OK"), ("Decrypt", "OK")} <= used


async def test_the_customers_key_protects_all_data_stored_in_s3(on_aws: Aws) -> None:
    """No plaintext and no data key of the provider's is in the bucket, whole objects or parts of unfinished ones."""
    marker = content(64, "marker")
    async with on_aws.serving(lease_refresh=30, lease_bound=60) as server:
        acme = await customer(on_aws, server)
        await acme.back_up("marked", marker * 1000)
        await interrupted(server, TENANT, marker * (9 * MIB // 64), persisted=PART)
    [upload] = on_aws.bucket.unfinished()
    stored = [on_aws.bucket.completed(upload), *(on_aws.bucket.read(name) for name in on_aws.bucket.sizes())]
    assert not any(marker in each for each in stored)
    for each in stored:
        assert object_header.parse(each[:HEADER_LENGTH]).wrap.key_arn == acme.key.arn
    used = {each.key_arn for each in on_aws.kms.requests if each.operation == "GenerateDataKey" and each.answer == "OK"}
    assert used == {acme.key.arn}


async def test_disabling_the_key_stops_backup_export_and_restore(acme: Customer) -> None:
    """Each is refused for that reason, and waits for the customer."""
    acme.key.disable()
    for told in await acme.refusals():
        assert (told.reason, told.recovery) == ("KMS_KEY_DISABLED", "wait")


async def test_enabling_it_resumes_them(acme: Customer) -> None:
    """At once: a refusal is not remembered."""
    acme.key.disable()
    await acme.refusals()
    acme.key.enable()
    await acme.back_up("new", b"new")
    assert await acme.restore("kept") == KEPT
    assert {entry.object.key for entry in (await acme.export()).entries} == {"kept", "new"}


async def test_nothing_is_lost_by_disabling(on_aws: Aws, acme: Customer) -> None:
    """While the key is disabled every stored byte stays, also of what was overwritten in vain and of uploads begun."""
    before = {name: on_aws.bucket.read(name) for name in on_aws.bucket.sizes()}
    acme.key.disable()
    await acme.refusals()
    assert (await failure(acme.back_up("kept", b"other"))).reason == "KMS_KEY_DISABLED"
    assert {name: on_aws.bucket.read(name) for name in on_aws.bucket.sizes()} == before
    listed = await acme.server.storage.List(ListRequest(tenant_id=TENANT))
    assert [each.key for each in listed.objects] == ["kept"]
    acme.key.enable()
    assert await acme.restore("kept") == KEPT


async def test_deleting_the_key_makes_the_data_unreadable_for_good(on_aws: Aws, acme: Customer) -> None:
    """Nothing is read and no new backup is taken, by another key least of all, neither now nor by the next process."""
    stored = on_aws.bucket.sizes()
    acme.key.schedule_deletion()
    assert {told.reason for told in await acme.refusals()} == {"KMS_KEY_PENDING_DELETION"}
    acme.key.delete()
    made = len([each for each in on_aws.kms.requests if each.answer == "OK"])
    for told in await acme.refusals():
        assert (told.reason, told.recovery) == ("KMS_KEY_NOT_FOUND", "none")
    async with on_aws.serving() as server:
        for told in await Customer(server, acme.key).refusals():
            assert told.reason == "KMS_KEY_NOT_FOUND"
    assert len([each for each in on_aws.kms.requests if each.answer == "OK"]) == made
    assert on_aws.bucket.sizes() == stored


async def test_rotation_works(on_aws: Aws, acme: Customer) -> None:
    """What was stored before reads after it, new objects are under the new material, and nothing was written again."""
    before = {name: on_aws.bucket.read(name) for name in on_aws.bucket.sizes()}
    acme.key.rotate()
    async with on_aws.serving() as server:
        after = Customer(server, acme.key)
        await after.back_up("new", b"new")
        assert await after.restore("kept") == KEPT
        assert await after.restore("new") == b"new"
    assert {name: on_aws.bucket.read(name) for name in before} == before


async def test_cloudtrail_works(on_aws: Aws, acme: Customer) -> None:
    """The customer's own CloudTrail shows every use of the key, whose data it was for, and by whom."""
    await acme.restore("kept")
    events = cloudtrail(on_aws.kms.requests, CUSTOMER_ACCOUNT)["Records"]
    uses = [event for event in events if event["eventName"] in ("GenerateDataKey", "Decrypt")]
    assert {event["eventName"] for event in uses} == {"GenerateDataKey", "Decrypt"}
    for event in uses:
        assert event["requestParameters"]["encryptionContext"] == {
            "keystow:tenant": TENANT,
            "keystow:deployment": "tests",
            "keystow:purpose": "data-key",
        }
