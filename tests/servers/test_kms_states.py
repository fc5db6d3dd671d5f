"""The faithful KMS answers each operation in each key state as AWS's table says."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from clock import FakeClock
from servers.kms.principals import CUSTOMER, PROVIDER, Principal
from servers.kms.server import faithful_kms
from servers.kms.sessions import client_of
from servers.kms.situations import bring, key_for
from servers.kms.states import State

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient

CONTEXT = {"keystow:tenant": "acme"}

Call = Callable[["KMSClient", str, bytes], Awaitable[Any]]

CALLS: Mapping[str, tuple[Principal, Call]] = {
    "GenerateDataKey": (
        PROVIDER,
        lambda kms, arn, _: kms.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=CONTEXT),
    ),
    "Decrypt": (
        PROVIDER,
        lambda kms, arn, blob: kms.decrypt(KeyId=arn, CiphertextBlob=blob, EncryptionContext=CONTEXT),
    ),
    "DescribeKey": (PROVIDER, lambda kms, arn, _: kms.describe_key(KeyId=arn)),
    "GetKeyPolicy": (CUSTOMER, lambda kms, arn, _: kms.get_key_policy(KeyId=arn)),
    "EnableKey": (CUSTOMER, lambda kms, arn, _: kms.enable_key(KeyId=arn)),
    "DisableKey": (CUSTOMER, lambda kms, arn, _: kms.disable_key(KeyId=arn)),
    "ScheduleKeyDeletion": (
        CUSTOMER,
        lambda kms, arn, _: kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7),
    ),
    "CancelKeyDeletion": (CUSTOMER, lambda kms, arn, _: kms.cancel_key_deletion(KeyId=arn)),
    "RotateKeyOnDemand": (CUSTOMER, lambda kms, arn, _: kms.rotate_key_on_demand(KeyId=arn)),
}

DISABLED = "DisabledException: {} is disabled."
DELETION = "KMSInvalidStateException: {} is pending deletion."
REPLICA = "KMSInvalidStateException: {} is pending replica deletion."
IMPORT = "KMSInvalidStateException: {} is pending import."
UNAVAILABLE = "KMSInvalidStateException: {} is unavailable."
CREATING = "KMSInvalidStateException: {} is creating."
UPDATING = "KMSInvalidStateException: {} is updating."
NOT_PENDING = "KMSInvalidStateException: {} is not pending deletion."
NO_ROTATION = "UnsupportedOperationException: {} cannot be rotated on demand."
GONE = "NotFoundException: Key '{}' does not exist"
OK = ""

# Of each state, in the order of CALLS.
ANSWERS = {
    State.ENABLED: [OK, OK, OK, OK, OK, OK, OK, NOT_PENDING, OK],
    State.DISABLED: [DISABLED, DISABLED, OK, OK, OK, OK, OK, NOT_PENDING, DISABLED],
    State.PENDING_DELETION: [DELETION, DELETION, OK, OK, DELETION, DELETION, DELETION, OK, DELETION],
    State.PENDING_REPLICA_DELETION: [REPLICA, REPLICA, OK, OK, REPLICA, REPLICA, REPLICA, OK, REPLICA],
    State.PENDING_IMPORT: [IMPORT, IMPORT, OK, OK, IMPORT, IMPORT, OK, NOT_PENDING, NO_ROTATION],
    State.UNAVAILABLE: [UNAVAILABLE, UNAVAILABLE, OK, OK, OK, OK, OK, NOT_PENDING, NO_ROTATION],
    State.CREATING: [CREATING, CREATING, OK, OK, CREATING, CREATING, CREATING, CREATING, CREATING],
    State.UPDATING: [OK, OK, OK, OK, UPDATING, UPDATING, UPDATING, UPDATING, UPDATING],
    State.DELETED: [GONE] * len(CALLS),
}


def test_the_table_has_every_state() -> None:
    """And an answer for every operation."""
    assert set(ANSWERS) == set(State)
    assert {len(answers) for answers in ANSWERS.values()} == {len(CALLS)}


@pytest.mark.parametrize("state", State)
async def test_each_operation_in_each_state(state: State) -> None:
    """Its answer, with AWS's code and words."""
    async with (
        faithful_kms() as kms,
        client_of(kms, PROVIDER) as provider,
        client_of(kms, CUSTOMER) as customer,
    ):
        for (operation, (principal, call)), expected in zip(CALLS.items(), ANSWERS[state], strict=True):
            key = key_for(kms, state, "acme")
            made = await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
            bring(kms, key, state)
            client = provider if principal is PROVIDER else customer
            told = await said(call(client, key.arn, made["CiphertextBlob"]))
            assert told == expected.format(key.arn), operation
            assert kms.requests[-1].answer == (expected.partition(":")[0] or "OK")


async def said(call: Awaitable[Any]) -> str:
    """The code and the words of a refusal; empty for an answer."""
    try:
        await call
    except ClientError as refusal:
        error = refusal.response["Error"]
        return f"{error['Code']}: {error['Message']}"
    return OK


async def test_the_other_code_of_pending_deletion() -> None:
    """A key may answer with DisabledException, in the same words."""
    async with faithful_kms() as kms, client_of(kms, PROVIDER) as provider:
        key = kms.create_key("acme")
        key.pending_code = "DisabledException"
        key.schedule_deletion()
        told = await said(CALLS["GenerateDataKey"][1](provider, key.arn, b""))
        assert told == f"DisabledException: {key.arn} is pending deletion."


async def test_deletion_is_carried_out_by_time() -> None:
    """The date is told; on it the key is gone. Cancelled before, it is disabled, and everything is readable again."""
    clock = FakeClock()
    async with (
        faithful_kms(clock=clock) as kms,
        client_of(kms, PROVIDER) as provider,
        client_of(kms, CUSTOMER) as customer,
    ):
        key = kms.create_key("acme")
        made = await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
        answer = await customer.schedule_key_deletion(KeyId=key.arn, PendingWindowInDays=7)
        described = (await provider.describe_key(KeyId=key.arn))["KeyMetadata"]
        assert (described["KeyState"], described["DeletionDate"]) == ("PendingDeletion", answer["DeletionDate"])
        assert (answer["DeletionDate"] - clock.now()).days == 7
        clock.advance(6 * 86_400)
        await customer.cancel_key_deletion(KeyId=key.arn)
        assert key.state is State.DISABLED
        await customer.enable_key(KeyId=key.arn)
        opened = await provider.decrypt(KeyId=key.arn, CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
        assert opened["Plaintext"] == made["Plaintext"]
        await customer.schedule_key_deletion(KeyId=key.arn, PendingWindowInDays=7)
        clock.advance(7 * 86_400)
        assert await said(provider.describe_key(KeyId=key.arn)) == GONE.format(key.arn)
