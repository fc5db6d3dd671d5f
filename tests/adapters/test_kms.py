"""How AWS KMS's failures become ours: each driven through the real client, against the faithful server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from keystow_service import errors
from keystow_service.adapters import kms_errors
from keystow_service.adapters.kms import KmsPatience, open_kms
from keystow_service.model import KeyArn, KeyState
from keystow_service.ports import EncryptionContext, KeyService
from servers.kms.documents import denying
from servers.kms.faults import Drop, Fault
from servers.kms.keys import Kind
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import session_of
from servers.kms.situations import bring, key_for
from servers.kms.states import TEXTS, State
from servers.listener import listening

REGION = "eu-west-2"
ACME: EncryptionContext = {"keystow:tenant": "acme"}
IMPATIENT = KmsPatience(connect=1.0, read=0.2, attempts=1, call=1.0, explanation=0.2)

FINAL_CODES = {
    "NotFoundException": errors.KmsKeyNotFoundError,
    "AccessDeniedException": errors.KmsAccessDeniedError,
    "InvalidKeyUsageException": errors.KmsKeyUsageInvalidError,
    "InvalidGrantTokenException": errors.KmsGrantInvalidError,
    "IncorrectKeyException": errors.WrappedKeyInvalidError,
    "InvalidCiphertextException": errors.WrappedKeyInvalidError,
    "UnrecognizedClientException": errors.ProviderCredentialsError,
    "ExpiredTokenException": errors.ProviderCredentialsError,
    "InvalidClientTokenId": errors.ProviderCredentialsError,
    "IncompleteSignature": errors.ProviderCredentialsError,
    "InvalidSignatureException": errors.ProviderCredentialsError,
    "MissingAuthenticationToken": errors.ProviderCredentialsError,
    "ValidationException": errors.InternalError,
    "SomethingNewException": errors.InternalError,
}
RETRIED_CODES = {
    ("KeyUnavailableException", 500): errors.KmsUnavailableError,
    ("DependencyTimeoutException", 500): errors.KmsUnavailableError,
    ("KMSInternalException", 500): errors.KmsUnavailableError,
    ("ServiceUnavailableException", 503): errors.KmsUnavailableError,
    ("ThrottlingException", 400): errors.KmsThrottledError,
    ("LimitExceededException", 400): errors.KmsThrottledError,
}


@pytest.fixture
async def kms() -> AsyncIterator[FaithfulKms]:
    async with faithful_kms(REGION) as server:
        yield server


@pytest.fixture
async def service(kms: FaithfulKms) -> AsyncIterator[KeyService]:
    """Without retries, so that one fault is one answer."""
    async with open_kms(
        REGION, session=session_of(), endpoint=kms.endpoints[REGION], patience=KmsPatience(attempts=1)
    ) as service:
        yield service


def key_of(kms: FaithfulKms, *tenants: str) -> KeyArn:
    return KeyArn.parse(kms.create_key(*(tenants or ("acme",)), region=REGION).arn)


@asynccontextmanager
async def raises(kind: type[errors.KeystowError], kms: FaithfulKms, arn: KeyArn) -> AsyncIterator[None]:
    """The block fails with this error, about this key, with the id of the last request but no text of AWS's."""
    with pytest.raises(errors.KeystowError) as caught:
        yield
    assert type(caught.value) is kind
    refused = [request for request in kms.requests if request.operation != "DescribeKey"][-1]
    assert caught.value.details["key_arn"] == arn.text
    assert caught.value.details["aws_request_id"] == refused.request_id
    assert "foreign" not in caught.value.message
    assert arn.text not in caught.value.message


async def test_answers_name_their_request(kms: FaithfulKms, service: KeyService) -> None:
    """What KMS did is known by the id under which CloudTrail has it."""
    arn = key_of(kms)
    key = await service.generate_data_key(arn, ACME)
    answers = (key, await service.unwrap(arn, key.wrapped, ACME), await service.describe(arn))
    assert [answer.request_id for answer in answers] == [request.request_id for request in kms.requests]


@pytest.mark.parametrize("code", FINAL_CODES)
async def test_final_codes(kms: FaithfulKms, service: KeyService, code: str) -> None:
    """Each code of the table becomes its error; a code nobody has heard of becomes InternalError."""
    arn = key_of(kms)
    kms.faults.fail_next(Fault(code))
    async with raises(FINAL_CODES[code], kms, arn):
        await service.generate_data_key(arn, ACME)


@pytest.mark.parametrize(("code", "status"), RETRIED_CODES)
async def test_passing_codes(kms: FaithfulKms, service: KeyService, code: str, status: int) -> None:
    """Throttling and outages become retryable errors that say when to try again."""
    arn = key_of(kms)
    kms.faults.fail_next(Fault(code, status=status))
    async with raises(RETRIED_CODES[code, status], kms, arn):
        await service.generate_data_key(arn, ACME)


async def test_retries(kms: FaithfulKms) -> None:
    """Failures that pass are outlived inside the call: outages, throttling and dropped connections."""
    arn = key_of(kms)
    async with open_kms(REGION, session=session_of(), endpoint=kms.endpoints[REGION]) as patient:
        for fault in (
            Fault("KMSInternalException", status=500),
            Fault("ThrottlingException"),
            Fault(drop=Drop.REQUEST),
        ):
            kms.faults.fail_next(fault)
            key = await patient.generate_data_key(arn, ACME)
            assert (await patient.unwrap(arn, key.wrapped, ACME)).plaintext == key.plaintext


async def test_retries_end(kms: FaithfulKms) -> None:
    """After three attempts throttling is reported, with a delay for the caller."""
    arn = key_of(kms)
    kms.faults.fail_next(Fault("ThrottlingException"), times=3)
    async with open_kms(REGION, session=session_of(), endpoint=kms.endpoints[REGION]) as patient:
        with pytest.raises(errors.KmsThrottledError) as caught:
            await patient.generate_data_key(arn, ACME)
    assert caught.value.retry_after is not None
    assert len(kms.requests) == 3


async def test_dropped_connection(kms: FaithfulKms, service: KeyService) -> None:
    """A connection that ends without an answer is KMS_UNAVAILABLE."""
    arn = key_of(kms)
    kms.faults.fail_next(Fault(drop=Drop.REQUEST))
    with pytest.raises(errors.KmsUnavailableError) as caught:
        await service.generate_data_key(arn, ACME)
    assert caught.value.details == {"key_arn": arn.text}


async def test_nobody_listens(kms: FaithfulKms, unused_tcp_port: int) -> None:
    """A refused connection is KMS_UNAVAILABLE."""
    arn = key_of(kms)
    endpoint = f"http://127.0.0.1:{unused_tcp_port}"
    async with open_kms(REGION, session=session_of(), endpoint=endpoint, patience=IMPATIENT) as service:
        with pytest.raises(errors.KmsUnavailableError):
            await service.generate_data_key(arn, ACME)


@pytest.mark.parametrize(
    "patience",
    [IMPATIENT, KmsPatience(read=60.0, call=0.2)],
    ids=["read timeout", "bound of the whole call"],
)
async def test_no_answer(kms: FaithfulKms, patience: KmsPatience) -> None:
    """A KMS that takes the request and says nothing is KMS_UNAVAILABLE, after a bounded time."""
    arn = key_of(kms)
    kms.faults.hold("GenerateDataKey")
    async with open_kms(REGION, session=session_of(), endpoint=kms.endpoints[REGION], patience=patience) as service:
        with pytest.raises(errors.KmsUnavailableError):
            await service.generate_data_key(arn, ACME)


async def test_cancelled(kms: FaithfulKms, service: KeyService) -> None:
    """Cancelling a call that waits for KMS cancels it, and the client works on."""
    arn = key_of(kms)
    gate = kms.faults.hold("GenerateDataKey")
    call = asyncio.create_task(service.generate_data_key(arn, ACME))
    await gate.until(held=1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.open()
    await service.generate_data_key(arn, ACME)


async def test_no_credentials(kms: FaithfulKms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials of our own nothing is asked, and the operator is told."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    arn = key_of(kms)
    async with open_kms(REGION, endpoint=kms.endpoints[REGION]) as service:
        with pytest.raises(errors.ProviderCredentialsError):
            await service.generate_data_key(arn, ACME)
    assert not kms.requests


async def test_refused_role(kms: FaithfulKms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What STS refuses on the way to our own credentials is not taken for an answer of KMS about the tenant's key.

    Nor is its request's id for one that CloudTrail has of KMS.
    """
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        "<Code>AccessDeniedException</Code><Message>foreign text</Message></Error>"
        "<RequestId>of-sts</RequestId></ErrorResponse>"
    )

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 403 -\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / "token"
    token.write_text("token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::444455556666:role/keystow")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    async with listening(refuse) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
        arn = key_of(kms)
        async with open_kms(REGION, endpoint=kms.endpoints[REGION]) as service:
            with pytest.raises(errors.ProviderCredentialsError) as caught:
                await service.generate_data_key(arn, ACME)
    assert "foreign" not in caught.value.message
    assert "aws_request_id" not in caught.value.details
    assert not kms.requests


KEY_STATES = {
    State.DISABLED: (errors.KmsKeyDisabledError, KeyState.DISABLED),
    State.PENDING_DELETION: (errors.KmsKeyPendingDeletionError, KeyState.PENDING_DELETION),
    State.PENDING_REPLICA_DELETION: (errors.KmsKeyPendingDeletionError, KeyState.PENDING_DELETION),
    State.PENDING_IMPORT: (errors.KmsKeyPendingImportError, KeyState.PENDING_IMPORT),
    State.UNAVAILABLE: (errors.KmsKeyStoreUnavailableError, KeyState.UNAVAILABLE),
    State.CREATING: (errors.KmsKeyTransitioningError, KeyState.UNAVAILABLE),
    State.UPDATING: (errors.KmsKeyTransitioningError, KeyState.UNAVAILABLE),
}


@pytest.mark.parametrize("describable", [True, False], ids=["described", "by text"])
@pytest.mark.parametrize("code", ["DisabledException", "KMSInvalidStateException"])
@pytest.mark.parametrize("state", KEY_STATES)
async def test_key_states(kms: FaithfulKms, service: KeyService, state: State, code: str, *, describable: bool) -> None:
    """Each state of a key has its error, whichever exception it answers with, and also if DescribeKey is denied."""
    key = key_for(kms, state, "acme", region=REGION)
    arn = KeyArn.parse(key.arn)
    bring(kms, key, state)
    kms.faults.fail_next(Fault(code, f"{key.arn} {TEXTS[state]}"))
    if not describable:
        key.put_policy(denying(key.standing.policy, "DescribeKey"))
    kind, key_state = KEY_STATES[state]
    if not describable and code == "DisabledException" and kind is errors.KmsKeyTransitioningError:
        kind, key_state = KEY_STATES[State.DISABLED]  # nothing says more than the code
    async with raises(kind, kms, arn):
        await service.generate_data_key(arn, ACME)
    if describable:
        assert (await service.describe(arn)).state is key_state


@pytest.mark.parametrize("code", ["DisabledException", "KMSInvalidStateException"])
@pytest.mark.parametrize("state", KEY_STATES)
async def test_key_states_in_other_words(kms: FaithfulKms, service: KeyService, state: State, code: str) -> None:
    """AWS may word its sentences anew: what DescribeKey says of the state decides."""
    key = key_for(kms, state, "acme", region=REGION)
    arn = KeyArn.parse(key.arn)
    bring(kms, key, state)
    kms.faults.fail_next(Fault(code, "foreign text"))
    async with raises(KEY_STATES[state][0], kms, arn):
        await service.generate_data_key(arn, ACME)


async def test_a_state_that_nobody_has_heard_of(kms: FaithfulKms, service: KeyService) -> None:
    """It blames no key store."""
    arn = key_of(kms)
    described = {"KeyMetadata": {"Arn": arn.text, "KeyState": "Hibernating"}}
    kms.faults.fail_next(Fault("KMSInvalidStateException"))
    kms.faults.fail_next(Fault(status=200, body=json.dumps(described).encode()))
    async with raises(errors.KmsKeyTransitioningError, kms, arn):
        await service.generate_data_key(arn, ACME)


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose time is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


async def test_deletion_date(kms: FaithfulKms, service: KeyService, in_tokyo: None) -> None:
    """The error of a key that awaits deletion tells the date, in UTC."""
    arn = key_of(kms)
    date = kms[arn.text].schedule_deletion()
    with pytest.raises(errors.KmsKeyPendingDeletionError, match=f"{date:%Y-%m-%d %H:%M} UTC"):
        await service.generate_data_key(arn, ACME)


async def test_refusal_does_not_wait_for_its_reason(kms: FaithfulKms) -> None:
    """When DescribeKey is not answered, the refusal stands after a short while, by AWS's text."""
    arn = key_of(kms)
    kms[arn.text].schedule_deletion()
    patience = KmsPatience(read=60.0, explanation=0.1)
    kms.faults.hold("DescribeKey")
    async with (
        open_kms(REGION, session=session_of(), endpoint=kms.endpoints[REGION], patience=patience) as service,
        raises(errors.KmsKeyPendingDeletionError, kms, arn),
    ):
        await service.generate_data_key(arn, ACME)


async def test_key_enabled_in_between(kms: FaithfulKms, service: KeyService) -> None:
    """A key that refused as disabled and is enabled when described was disabled."""
    arn = key_of(kms)
    kms.faults.fail_next(Fault("DisabledException", "is foreign"))
    async with raises(errors.KmsKeyDisabledError, kms, arn):
        await service.generate_data_key(arn, ACME)


async def test_other_usage(kms: FaithfulKms, service: KeyService) -> None:
    """A signing key is described as such, and refused."""
    key = kms.create_key("acme", region=REGION, kind=Kind(spec="RSA_2048", usage="SIGN_VERIFY"))
    arn = KeyArn.parse(key.arn)
    assert not (await service.describe(arn)).symmetric_encryption
    async with raises(errors.KmsKeyUsageInvalidError, kms, arn):
        await service.generate_data_key(arn, ACME)


async def test_other_region(kms: FaithfulKms, service: KeyService) -> None:
    """A key of another region is not found in this one."""
    arn = KeyArn.parse(kms.create_key("acme", region="us-east-1").arn)
    async with raises(errors.KmsKeyNotFoundError, kms, arn):
        await service.generate_data_key(arn, ACME)


async def test_answer_for_another_key(kms: FaithfulKms, service: KeyService) -> None:
    """A data key made under another KMS key than the one asked for is thrown away."""
    arn, another = key_of(kms), key_of(kms)
    made = {"KeyId": another.text, "Plaintext": "AAAA", "CiphertextBlob": "AAAA"}
    for call, content in (
        (service.generate_data_key(arn, ACME), made),
        (service.describe(arn), {"KeyMetadata": {"Arn": another.text}}),
    ):
        kms.faults.fail_next(Fault(status=200, body=json.dumps(content).encode()))
        with pytest.raises(errors.InternalError):
            await call


NONSENSE = {
    "nothing": b"",
    "no JSON": b"<html>foreign text</html>",
    "not UTF-8": b"\xff\xfe",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"foreign text"',
    "an empty object": b"{}",
    "fields of other types": b'{"KeyId": [], "Plaintext": 1, "CiphertextBlob": {}, "KeyMetadata": []}',
    "no base64": b'{"KeyId": "", "Plaintext": "?", "CiphertextBlob": "?", "KeyMetadata": {"Arn": 1}}',
    "a code of another type": b'{"__type": [], "message": {}}',
}


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_answers_that_are_none(kms: FaithfulKms, service: KeyService, nonsense: str, status: int) -> None:
    """What is not the JSON that KMS promises comes from something before it, or is a failure of KMS: try again."""
    arn = key_of(kms)
    key = await service.generate_data_key(arn, ACME)
    for call in (
        lambda: service.generate_data_key(arn, ACME),
        lambda: service.unwrap(arn, key.wrapped, ACME),
        lambda: service.describe(arn),
    ):
        kms.faults.fail_next(Fault(status=status, body=NONSENSE[nonsense]))
        with pytest.raises(errors.KmsUnavailableError) as caught:
            await call()
        assert "foreign" not in caught.value.message


@pytest.mark.parametrize(
    "metadata",
    [
        b"[]",
        b'{"KeyState": []}',
        b'{"KeyState": {}, "DeletionDate": "never"}',
        b'{"KeyState": "PendingDeletion", "DeletionDate": []}',
    ],
)
async def test_a_refusal_with_a_senseless_description(kms: FaithfulKms, service: KeyService, metadata: bytes) -> None:
    """The refusal is told for what it is, and closes the lease, whatever DescribeKey says of the key."""
    arn = key_of(kms)
    kms.faults.fail_next(Fault("DisabledException", "is foreign"))
    kms.faults.fail_next(Fault(status=200, body=b'{"KeyMetadata": ' + metadata + b"}"))
    async with raises(errors.KmsKeyDisabledError, kms, arn):
        await service.generate_data_key(arn, ACME)


async def test_a_refusal_whose_text_is_none(kms: FaithfulKms, service: KeyService) -> None:
    """So it is if its message is no text, and DescribeKey does not answer."""
    arn = key_of(kms)
    kms.faults.fail_next(Fault(body=b'{"__type": "DisabledException", "message": [1]}'))
    kms.faults.fail_next(Fault(drop=Drop.REQUEST))
    with pytest.raises(errors.KmsKeyDisabledError):
        await service.generate_data_key(arn, ACME)


async def test_every_request_names_key_and_context(kms: FaithfulKms, service: KeyService) -> None:
    """The customer's CloudTrail shows the full ARN and the tenant's context with each use of the key."""
    arn = key_of(kms)
    key = await service.generate_data_key(arn, ACME)
    await service.unwrap(arn, key.wrapped, ACME)
    assert [(request.operation, request.key_id, request.context) for request in kms.requests] == [
        ("GenerateDataKey", arn.text, ACME),
        ("Decrypt", arn.text, ACME),
    ]


def test_table_covers_errors() -> None:
    """Every KMS reason has a verdict that leads to it."""
    verdicts = [value for value in vars(kms_errors).values() if isinstance(value, kms_errors.Verdict)]
    kms_reasons = {*errors.KeyRefusal.__subclasses__(), errors.WrappedKeyInvalidError, errors.KmsUnavailableError}
    kms_reasons |= {errors.KmsThrottledError, errors.ProviderCredentialsError, errors.InternalError}
    assert {verdict.kind for verdict in verdicts} == kms_reasons


async def test_slow_answers_hold_up_nobody_else(kms: FaithfulKms) -> None:
    """While the keys of some tenants answer slowly there is room for the requests of many others."""
    arn = key_of(kms)
    patience = KmsPatience(read=60.0, attempts=1, call=60.0)
    async with open_kms(REGION, session=session_of(), endpoint=kms.endpoints[REGION], patience=patience) as service:
        made = await service.generate_data_key(arn, ACME)
        gate = kms.faults.hold("GenerateDataKey")
        slow = [asyncio.create_task(service.generate_data_key(arn, ACME)) for _ in range(30)]
        try:
            async with asyncio.timeout(30):
                await gate.until(len(slow))
                assert (await service.unwrap(arn, made.wrapped, ACME)).plaintext == made.plaintext
        finally:
            gate.open()
            await asyncio.gather(*slow)
