"""What CheckKey finds of keys on the faithful KMS, whose policies are documents as customers write them."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from keys.trying import ACME, Trying, details, outcomes
from keystow_service import errors
from keystow_service.acting import acting
from keystow_service.keys.key_report import Outcome
from keystow_service.model import KeyArn, KeyManagement, KeyState, Tenant, TenantId
from servers.kms.documents import broad_policy, denying
from servers.kms.faults import Fault
from servers.kms.keys import Key, Kind
from servers.kms.policy import Document
from servers.kms.principals import CUSTOMER_ACCOUNT
from servers.kms.service import FaithfulKms
from servers.kms.situations import bring, key_for
from servers.kms.states import State

FAILED, WARNING, SKIPPED = Outcome.FAILED, Outcome.WARNING, Outcome.SKIPPED
IN_ORDER = (
    "arn.syntax",
    "arn.region",
    "arn.unused",
    "key.describe",
    "grant.generate",
    "grant.decrypt",
    "policy.confined",
)


def stopped_at(*failed: str) -> dict[str, Outcome]:
    """These fail, and what comes after the last of them is not tried."""
    last = IN_ORDER.index(failed[-1])
    return {**dict.fromkeys(failed, FAILED), **dict.fromkeys(IN_ORDER[last + 1 :], SKIPPED)}


async def test_a_proper_key_passes_everything(trying: Trying) -> None:
    """Every check by its name, in order, with a sentence; every request for data carries the tenant's context."""
    key = trying.kms.create_key("acme")
    report = await trying.check(key.arn)
    assert outcomes(report) == {}
    assert not report.failures
    assert report.state is KeyState.ENABLED
    assert [each.check.value for each in report.checks] == list(IN_ORDER)
    for each in report.checks:
        assert re.fullmatch(r"[A-Z].*\.", each.detail)
    done = [(each.operation, each.context.get("keystow:tenant")) for each in trying.kms.requests if each.answer == "OK"]
    assert done == [("DescribeKey", None), ("GenerateDataKey", "acme"), ("Decrypt", "acme")]


NO_ARNS = {
    "alias/backup": "is an alias",
    " arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\n": "has white space around it",
    "arn:aws:kms:us-east-1:111122223333:alias/backup": "is an alias",
    "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab": "another partition",
    "1234abcd-12ab-34cd-56ef-1234567890ab": "not of the form",
    "x" * 9000: "not of the form",
    # An account in the digits of another script.
    "arn:aws:kms:us-east-1:"
    + "\N{ARABIC-INDIC DIGIT ONE}" * 12
    + ":key/1234abcd-12ab-34cd-56ef-1234567890ab": "not of",
}


@pytest.mark.parametrize("arn", NO_ARNS)
async def test_what_is_no_key_arn(trying: Trying, arn: str) -> None:
    """It is an answer that says what it is instead, in few words, and KMS is not asked."""
    report = await trying.check(arn)
    assert outcomes(report) == stopped_at("arn.syntax")
    assert NO_ARNS[arn] in details(report)["arn.syntax"]
    assert "Paste the key's full ARN" in details(report)["arn.syntax"]
    assert len(details(report)["arn.syntax"]) < 200
    assert (report.state, trying.kms.requests) == (None, [])


async def test_a_key_of_another_region(trying: Trying) -> None:
    """KMS has a server in each region, and none is asked."""
    report = await trying.check(trying.kms.create_key("acme", region="eu-west-1").arn)
    assert outcomes(report) == stopped_at("arn.region")
    assert "eu-west-1" in details(report)["arn.region"]
    assert trying.kms.requests == []


async def test_a_key_of_another_tenant(trying: Trying) -> None:
    """Neither whose it is nor how it does is told, also of its replica elsewhere; its own tenant may try it again."""
    key = trying.kms.create_key("acme", "globex", region="eu-west-1", kind=Kind(multi_region=True))
    replica = trying.kms.replicate(key, "us-east-1")
    await trying.register("globex", key.arn, "eu")
    asked = len(trying.kms.requests)
    report = await trying.check(replica.arn)
    assert outcomes(report) == stopped_at("arn.unused")
    assert "globex" not in str(report)
    assert (report.state, len(trying.kms.requests)) == (None, asked)
    own = trying.kms.create_key("acme")
    await trying.register("acme", own.arn)
    assert outcomes(await trying.check(own.arn)) == {}


async def test_provider_keys_are_nobodys_own(trying: Trying) -> None:
    """Of no data centre, no replica, and also none that is the provider's no more but still has tenants."""
    former = trying.kms.create_key(region="us-east-1", policy=broad_policy(CUSTOMER_ACCOUNT))
    provided = TenantId("provided")
    await trying.registry.add(
        Tenant(provided, "", KeyManagement.PROVIDER, KeyArn.parse(former.arn), "us", datetime(2026, 1, 1, tzinfo=UTC))
    )
    abroad = trying.kms.create_key(region="eu-west-1", kind=Kind(multi_region=True))
    replica = trying.kms.replicate(abroad, "us-east-1")
    trying.sites["eu"] = replace(trying.sites["eu"], provider_key=KeyArn.parse(abroad.arn))
    for arn in (former.arn, replica.arn, trying.sites["us"].provider_key.text):
        assert outcomes(await trying.check(arn)) == stopped_at("arn.unused")
        with pytest.raises(errors.KmsKeyInUseError):
            await trying.register("acme", arn)
    assert trying.kms.requests == []


@pytest.mark.parametrize(
    ("state", "shown", "advice"),
    [
        (State.DISABLED, KeyState.DISABLED, "enable it"),
        (State.PENDING_DELETION, KeyState.PENDING_DELETION, r"deletion on 20\d\d-\d\d-\d\d: cancel that"),
        (State.PENDING_REPLICA_DELETION, KeyState.PENDING_DELETION, "cancel that"),
        (State.PENDING_IMPORT, KeyState.PENDING_IMPORT, "import it"),
        (State.UNAVAILABLE, KeyState.UNAVAILABLE, "key store"),
        (State.CREATING, KeyState.UNAVAILABLE, "just being made"),
        (State.DELETED, KeyState.NOT_FOUND, "no such key"),
    ],
)
async def test_states(trying: Trying, state: State, shown: KeyState, advice: str) -> None:
    """A key in a state that does not allow its use is described as such, and not used."""
    key = key_for(trying.kms, state, "acme")
    bring(trying.kms, key, state)
    report = await trying.check(key.arn)
    assert outcomes(report) == stopped_at("key.describe")
    assert report.state is shown
    assert re.search(advice, details(report)["key.describe"])
    assert {each.operation for each in trying.kms.requests} == {"DescribeKey"}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Kind(spec="RSA_2048"), "not for symmetric"),
        (Kind(spec="HMAC_256", usage="GENERATE_VERIFY_MAC"), "not for symmetric"),
        (Kind(manager="AWS"), "managed by AWS"),
    ],
    ids=["RSA", "HMAC", "managed by AWS"],
)
async def test_other_kinds_of_keys(trying: Trying, kind: Kind, says: str) -> None:
    """Only customer managed keys for symmetric encryption will do."""
    report = await trying.check(trying.kms.create_key("acme", kind=kind).arn)
    assert outcomes(report) == stopped_at("key.describe")
    assert says in details(report)["key.describe"]


@pytest.mark.parametrize(
    ("without", "failed", "shown"),
    [
        (["DescribeKey"], {"key.describe": FAILED}, KeyState.ENABLED),
        (["GenerateDataKey"], stopped_at("grant.generate"), KeyState.ACCESS_DENIED),
        (["Decrypt"], stopped_at("grant.decrypt"), KeyState.ACCESS_DENIED),
        (["DescribeKey", "GenerateDataKey"], stopped_at("key.describe", "grant.generate"), KeyState.ACCESS_DENIED),
    ],
    ids=["describe", "generate", "decrypt", "describe and generate"],
)
async def test_what_the_policy_lacks(
    trying: Trying, without: list[str], failed: dict[str, Outcome], shown: KeyState
) -> None:
    """Each grant fails by its own name, all at once; without DescribeKey nobody could tell disabled from deleted."""
    key = trying.kms.create_key("acme")
    key.put_policy(denying(key.standing.policy, *without))
    report = await trying.check(key.arn)
    assert outcomes(report) == failed
    assert report.state is shown
    for each in report.failures:
        assert "GetKeyPolicy" in each.detail
        assert "five minutes" in each.detail


def conditioned(condition: Document) -> Document:
    """A policy that lets the provider's role use the key under this condition."""
    policy = broad_policy(CUSTOMER_ACCOUNT)
    describe, use = policy["Statement"], {**policy["Statement"][-1], "Condition": condition}
    return {**policy, "Statement": [*describe[:-1], {**describe[-1], "Action": "kms:DescribeKey"}, use]}


_TENANT = "kms:EncryptionContext:keystow:tenant"
BROAD = {
    "no condition": broad_policy(CUSTOMER_ACCOUNT),
    "any tenant": conditioned({"StringLike": {_TENANT: "*"}}),
    "tenants that begin alike": conditioned({"StringLike": {_TENANT: "acme*"}}),
    "tenants that end alike": conditioned({"StringLike": {_TENANT: "*acme"}}),
    "if there is a tenant": conditioned({"StringEqualsIfExists": {_TENANT: "acme"}}),
    "the set operator that AWS warns of": conditioned({"ForAllValues:StringEquals": {_TENANT: "acme"}}),
    "deployment only": conditioned({"StringEquals": {"kms:EncryptionContext:keystow:deployment": "tests"}}),
    "names only": conditioned({"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "keystow:tenant"}}),
}


@pytest.mark.parametrize("policy", BROAD.values(), ids=BROAD)
async def test_a_key_that_serves_others(trying: Trying, policy: Document) -> None:
    """It could be claimed for another tenant, so it is refused, unless the operator allows it."""
    arn = trying.kms.create_key(policy=policy).arn
    assert outcomes(await trying.check(arn)) == {"policy.confined": FAILED}
    allowed = await trying.check(arn, allow_broad_key_policies=True)
    assert outcomes(allowed) == {"policy.confined": WARNING}
    assert "kms:EncryptionContext:keystow:tenant equals acme" in details(allowed)["policy.confined"]


async def test_probes_name_no_tenant(trying: Trying) -> None:
    """CloudTrail shows contexts to the key's owner: those tried for others are nobody's, and of the ids' length."""
    key = trying.kms.create_key("acme")
    await trying.check(key.arn)
    denied = [each.context for each in trying.kms.requests if each.answer == "AccessDeniedException"]
    tenants = [context.get("keystow:tenant", "none") for context in denied]
    assert re.fullmatch(r"keystow-probe-\w{16} acme-\w{8} k\w{8}-acme none", " ".join(tenants))
    long = TenantId("a" * 63)
    await trying.checks()(trying.kms.create_key(long).arn, long, trying.sites["us"], wait=0)
    assert max(len(each.context.get("keystow:tenant", "")) for each in trying.kms.requests) == 63


def _imported(kms: FaithfulKms, valid_to: datetime | None = None) -> Key:
    key = kms.create_key("acme", kind=Kind(origin="EXTERNAL"))
    key.import_material(valid_to)
    return key


WARNINGS: dict[str, Callable[[FaithfulKms], Key]] = {
    "was imported: keep a copy": _imported,
    "expires on 2999-01-31 12:30 UTC": lambda kms: _imported(kms, datetime(2999, 1, 31, 12, 30, tzinfo=UTC)),
    "CloudHSM key store": lambda kms: kms.create_key("acme", kind=Kind(origin="AWS_CLOUDHSM")),
    "external key store": lambda kms: kms.create_key("acme", kind=Kind(origin="EXTERNAL_KEY_STORE")),
    "not known to this release": lambda kms: kms.create_key("acme", kind=Kind(origin="NEWER_THAN_THIS")),
    "each of its replicas must be disabled": lambda kms: kms.create_key("acme", kind=Kind(multi_region=True)),
}


@pytest.mark.parametrize("says", WARNINGS)
async def test_what_works_but_should_be_known(trying: Trying, says: str) -> None:
    """A warning says what the customer has to mind, and keeps nobody from registering."""
    key = WARNINGS[says](trying.kms)
    report = await trying.check(key.arn)
    assert outcomes(report) == {"key.describe": WARNING}
    assert says in details(report)["key.describe"]
    assert (await trying.register("acme", key.arn)).tenant.key_arn.text == key.arn


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("KMSInternalException", status=500), errors.KmsUnavailableError),
        (Fault("ThrottlingException"), errors.KmsThrottledError),
        (Fault("ExpiredTokenException"), errors.ProviderCredentialsError),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
@pytest.mark.parametrize("operation", ["DescribeKey", "GenerateDataKey", "Decrypt"])
async def test_outages_say_nothing_of_the_key(
    trying: Trying, operation: str, fault: Fault, kind: type[errors.KeystowError]
) -> None:
    """They are errors, of CheckKey too, and nothing is registered."""
    key = trying.kms.create_key("acme")
    trying.kms.faults.fail_next(fault, operation=operation)
    with pytest.raises(kind):
        await trying.check(key.arn)
    trying.kms.faults.fail_next(fault, operation=operation)
    with pytest.raises(kind):
        await trying.register("acme", key.arn)
    assert not await trying.registry.list(limit=1)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("DescribeKey", "NotFoundException"),
        ("GenerateDataKey", "AccessDeniedException"),
        ("Decrypt", "AccessDeniedException"),
        ("GenerateDataKey", "DisabledException"),  # of a key that is described as enabled
    ],
)
async def test_what_is_fresh_is_waited_for(trying: Trying, operation: str, code: str) -> None:
    """A key or policy that AWS does not know everywhere yet passes in the end, if the caller asks to wait."""
    key = trying.kms.create_key("acme")
    trying.kms.faults.fail_next(Fault(code), operation=operation)
    assert len((await trying.check(key.arn)).failures) == 1
    trying.kms.faults.fail_next(Fault(code), operation=operation)
    assert outcomes(await trying.check(key.arn, wait=300)) == {}


async def test_waiting_ends_before_the_call_does(trying: Trying) -> None:
    """A call whose deadline comes before the time that it asks to wait is answered, not cut off."""
    key = trying.kms.create_key("globex")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5
    token = acting.set(replace(acting.get(), deadline=deadline))
    try:
        async with asyncio.timeout_at(deadline):
            report = await trying.check(key.arn, wait=300)
    finally:
        acting.reset(token)
    assert outcomes(report) == stopped_at("grant.generate")


async def test_waiting_is_for_what_may_change(trying: Trying) -> None:
    """A disabled key is told at once, however long the caller would wait; so is one that serves others."""
    disabled = trying.kms.create_key("acme")
    disabled.disable()
    broad = trying.kms.create_key(policy=broad_policy(CUSTOMER_ACCOUNT))
    assert outcomes(await trying.check(disabled.arn, wait=300)) == stopped_at("key.describe")
    assert outcomes(await trying.check(broad.arn, wait=300)) == {"policy.confined": FAILED}
    operations = [each.operation for each in trying.kms.requests]
    assert operations == ["DescribeKey", "DescribeKey", "GenerateDataKey", "Decrypt", *["GenerateDataKey"] * 4]


async def test_a_key_disabled_while_it_is_tried(trying: Trying) -> None:
    """What was not proven is not passed: the answer that a policy is confined must be a denial."""
    key = trying.kms.create_key("acme")
    gate = trying.kms.faults.hold("Decrypt")
    trial = asyncio.create_task(trying.check(key.arn))
    await gate.until(1)
    trying.kms.faults.fail_next(Fault("DisabledException", f"{key.arn} is disabled."), operation="GenerateDataKey")
    gate.open()
    report = await trial
    assert outcomes(report) == {"policy.confined": FAILED}


async def test_a_report_is_what_registration_refuses_by(trying: Trying) -> None:
    """RegisterTenant names every failed check, each with the sentence of CheckKey."""
    key = trying.kms.create_key("acme")
    key.put_policy(denying(key.standing.policy, "DescribeKey", "Decrypt"))
    report = await trying.check(key.arn)
    with pytest.raises(errors.KmsKeyUnusableError) as caught:
        await trying.register("acme", key.arn)
    told = {violation.subject: violation.description for violation in caught.value.violations}
    assert told == {each.check.value: each.detail for each in report.failures}
    assert set(told) == {"key.describe", "grant.decrypt"}
    assert caught.value.details == {"tenant_id": ACME, "key_arn": key.arn}
