"""The faithful KMS knows who calls, fails on request, lets changes wait, and keeps each account's CloudTrail."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3  # type: ignore[import-untyped] # boto3 ships no stubs
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from clock import FakeClock
from servers.kms.documents import tenant_policy
from servers.kms.faults import Drop, Fault
from servers.kms.keys import Key
from servers.kms.log import cloudtrail, write_cloudtrail
from servers.kms.principals import CUSTOMER, CUSTOMER_ACCOUNT, PROVIDER, PROVIDER_ACCOUNT, Principal
from servers.kms.process import KmsProcess, kms_process
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import client_of

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient

REGION = "us-east-1"
CONTEXT = {"keystow:tenant": "acme"}


class World(NamedTuple):
    """A KMS whose time stands still, one key in it, and a client with the provider's credentials."""

    kms: FaithfulKms
    key: Key
    provider: "KMSClient"
    clock: FakeClock

    async def use(self, **fields: Any) -> Any:
        """GenerateDataKey."""
        choice = {"KeyId": self.key.arn, "KeySpec": "AES_256", "EncryptionContext": CONTEXT, **fields}
        return await self.provider.generate_data_key(**choice)

    async def refusal(self) -> tuple[str, str]:
        """Code and words of a use that must be refused."""
        with pytest.raises(ClientError) as caught:
            await self.use()
        error = caught.value.response["Error"]
        return error["Code"], error["Message"]


@asynccontextmanager
async def worlds(principal: Principal = PROVIDER) -> AsyncIterator[World]:
    """One. ``principal`` is what the client takes for the provider's credentials."""
    clock = FakeClock()
    async with faithful_kms(clock=clock) as kms, client_of(kms, principal) as provider:
        yield World(kms, kms.create_key("acme"), provider, clock)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with worlds() as each:
        yield each


WRONG_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
FOREIGN = {
    "unknown access key": (
        replace(PROVIDER, access_key_id="AKIAUNKNOWN"),
        ("UnrecognizedClientException", "The security token included in the request is invalid."),
    ),
    "other session": (
        replace(PROVIDER, session_token="another"),
        ("UnrecognizedClientException", "The security token included in the request is invalid."),
    ),
    "no session": (
        replace(PROVIDER, session_token=None),
        ("UnrecognizedClientException", "The security token included in the request is invalid."),
    ),
    "wrong secret": (
        replace(PROVIDER, secret_access_key="wrong"),
        ("InvalidSignatureException", WRONG_SIGNATURE),
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
async def test_credentials_that_are_none(case: str) -> None:
    """They are refused before anything is said of the key, and no account's CloudTrail has them."""
    principal, told = FOREIGN[case]
    async with worlds(principal) as world:
        assert await world.refusal() == told
        assert world.kms.requests[-1].principal is None
        assert cloudtrail(world.kms.requests, PROVIDER_ACCOUNT)["Records"] == []


async def test_credentials_expire(world: World) -> None:
    """At their time, until they are renewed."""
    await world.use()
    world.kms.principals.expire(PROVIDER)
    assert await world.refusal() == ("ExpiredTokenException", "The security token included in the request is expired")
    world.kms.principals.renew(PROVIDER)
    await world.use()


async def test_credentials_of_another_region() -> None:
    """A client that signs for another region than the endpoint's is refused."""
    async with faithful_kms("us-east-1", "eu-west-1") as kms:
        kms.endpoints["us-east-1"] = kms.endpoints["eu-west-1"]
        async with client_of(kms, PROVIDER, "us-east-1") as client:
            with pytest.raises(ClientError, match=r"InvalidSignatureException.*not 'us-east-1'"):
                await client.describe_key(KeyId=kms.create_key("acme").arn)


async def test_the_next_requests_fail(world: World) -> None:
    """As many as asked for, in order, and only of one operation where one is named."""
    world.kms.faults.fail_next(Fault("KMSInternalException", status=500), times=2)
    world.kms.faults.fail_next(Fault("ThrottlingException"), operation="DescribeKey")
    for _ in range(2):
        assert (await world.refusal())[0] == "KMSInternalException"
    await world.use()
    with pytest.raises(ClientError, match="ThrottlingException"):
        await world.provider.describe_key(KeyId=world.key.arn)
    await world.provider.describe_key(KeyId=world.key.arn)


async def test_all_requests_fail_until_it_ends(world: World) -> None:
    """An outage."""
    world.kms.faults.fail_always(Fault("KMSInternalException", status=500))
    for _ in range(3):
        assert (await world.refusal())[0] == "KMSInternalException"
    world.kms.faults.end()
    await world.use()


async def test_a_dropped_request_is_not_done_and_a_dropped_answer_is(world: World) -> None:
    """Both look the same to the client; the log knows."""
    for drop, logged in ((Drop.REQUEST, ""), (Drop.ANSWER, "OK")):
        world.kms.faults.fail_next(Fault(drop=drop))
        with pytest.raises(HTTPClientError):
            await world.use()
        assert world.kms.requests[-1].answer == logged
    events = cloudtrail(world.kms.requests, CUSTOMER_ACCOUNT)["Records"]
    assert [event["eventName"] for event in events] == ["GenerateDataKey"]


async def test_a_stopped_region_refuses_connections(world: World) -> None:
    """And works again, at the same address, once it is started."""
    await world.use()
    await world.kms.servers[REGION].stop()
    with pytest.raises(EndpointConnectionError):
        await world.use()
    await world.kms.servers[REGION].start()
    await world.use()


async def test_more_than_the_rate_is_throttled(world: World) -> None:
    """By the clock: after half a second one of two per second is admitted again."""
    world.kms.faults.limit(per_second=2, burst=3)
    for _ in range(3):
        await world.use()
    code, words = await world.refusal()
    assert (code, words[:42]) == ("ThrottlingException", "You have exceeded the rate at which you ma")
    world.clock.advance(0.5)
    await world.use()
    assert (await world.refusal())[0] == "ThrottlingException"


async def test_a_held_request_waits(world: World) -> None:
    """Until its gate opens; others pass."""
    gate = world.kms.faults.hold("GenerateDataKey")
    use = asyncio.create_task(world.use())
    await gate.until(held=1)
    await world.provider.describe_key(KeyId=world.key.arn)
    assert not use.done()
    gate.open()
    await use


async def test_changes_wait_for_their_time(world: World) -> None:
    """The owner sees a change at once, whoever uses the key when propagation is over: by the clock, or by the test."""
    world.kms.lag.seconds = 3
    world.key.disable()
    assert (await world.provider.describe_key(KeyId=world.key.arn))["KeyMetadata"]["KeyState"] == "Disabled"
    world.clock.advance(2.9)
    await world.use()
    world.clock.advance(0.1)
    assert (await world.refusal())[0] == "DisabledException"
    world.kms.lag.hold()
    world.key.enable()
    world.clock.advance(1_000_000)
    assert (await world.refusal())[0] == "DisabledException"
    world.kms.lag.catch_up()
    await world.use()
    world.kms.lag.hold()
    world.key.put_policy(tenant_policy(CUSTOMER_ACCOUNT, "other"))
    await world.use()
    world.kms.lag.catch_up()
    assert (await world.refusal())[0] == "AccessDeniedException"


async def test_missing_keys_may_be_hidden(world: World) -> None:
    """From other accounts: AWS may answer as if they were not permitted."""
    world.key.delete()
    assert await world.refusal() == ("NotFoundException", f"Key '{world.key.arn}' does not exist")
    world.kms.hides_missing_keys = True
    code, words = await world.refusal()
    assert code == "AccessDeniedException"
    assert "the resource does not exist in this Region" in words
    async with client_of(world.kms, CUSTOMER) as owner:
        with pytest.raises(ClientError, match="NotFoundException"):
            await owner.describe_key(KeyId=world.key.arn)


async def test_each_account_has_its_cloudtrail(world: World, tmp_path: Path) -> None:
    """Both see a use, by one request id; a denied one is the caller's alone; nobody sees secrets."""
    used = await world.use()
    with pytest.raises(ClientError):
        await world.use(EncryptionContext={"keystow:tenant": "other"})
    world.key.disable()
    await world.refusal()
    for account in (PROVIDER_ACCOUNT, CUSTOMER_ACCOUNT):
        write_cloudtrail(world.kms.requests, account, tmp_path / account)
    provider, customer = (
        json.loads((tmp_path / account).read_text(encoding="utf-8"))["Records"]
        for account in (PROVIDER_ACCOUNT, CUSTOMER_ACCOUNT)
    )
    assert [event.get("errorCode") for event in provider] == [None, "AccessDenied", "DisabledException"]
    assert [event.get("errorCode") for event in customer] == [None, "DisabledException"]
    theirs, ours = customer[0], provider[0]
    assert theirs["requestID"] == ours["requestID"] == used["ResponseMetadata"]["RequestId"]
    assert theirs["sharedEventID"] == ours["sharedEventID"]
    assert theirs["eventID"] != ours["eventID"]
    assert theirs["requestParameters"] == {
        "keyId": world.key.arn,
        "encryptionContext": CONTEXT,
        "keySpec": "AES_256",
    }
    assert theirs["resources"] == [{"accountId": CUSTOMER_ACCOUNT, "type": "AWS::KMS::Key", "ARN": world.key.arn}]
    assert theirs["eventTime"] == "2026-01-01T00:00:00Z"
    assert theirs["userIdentity"]["accountId"] == PROVIDER_ACCOUNT
    assert "arn" not in theirs["userIdentity"]
    assert ours["userIdentity"]["arn"] == PROVIDER.arn
    assert customer[1]["errorMessage"] == f"{world.key.arn} is disabled."
    assert "responseElements" in theirs
    assert theirs["responseElements"] is None


def blocking_client(kms: KmsProcess, principal: Principal) -> Any:
    """By boto3."""
    return boto3.client(
        "kms",
        region_name=REGION,
        endpoint_url=kms.endpoints[REGION],
        aws_access_key_id=principal.access_key_id,
        aws_secret_access_key=principal.secret_access_key,
        aws_session_token=principal.session_token,
    )


def test_a_process_of_its_own() -> None:
    """Customers act by boto3, the test turns the rest by the control path, and CloudTrail tells what happened."""
    with (
        kms_process("us-east-1", "eu-west-1") as kms,
        closing(blocking_client(kms, CUSTOMER)) as customer,
        closing(blocking_client(kms, PROVIDER)) as provider,
    ):
        assert set(kms.endpoints) == {"us-east-1", "eu-west-1"}
        policy = json.dumps(tenant_policy(CUSTOMER_ACCOUNT, "acme"))
        arn = customer.create_key(Policy=policy)["KeyMetadata"]["Arn"]

        def use() -> Any:
            return provider.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=CONTEXT)

        use()
        kms.control("lag", seconds=None)
        customer.disable_key(KeyId=arn)
        use()
        kms.control("catch_up")
        with pytest.raises(ClientError, match="DisabledException"):
            use()
        kms.control("fail", code="AccessDeniedException", message="foreign")
        with pytest.raises(ClientError, match="AccessDeniedException"):
            use()
        kms.control("act", arn=arn, act="delete")
        with pytest.raises(ClientError, match="NotFoundException"):
            use()
        events = kms.control("cloudtrail", account=CUSTOMER_ACCOUNT)["Records"]
        assert [(event["eventName"], event.get("errorCode")) for event in events] == [
            ("CreateKey", None),
            ("GenerateDataKey", None),
            ("DisableKey", None),
            ("GenerateDataKey", None),
            ("GenerateDataKey", "DisabledException"),
        ]
