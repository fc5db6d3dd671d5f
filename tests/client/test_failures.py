"""Failures reach the caller typed and readable, whatever the peer puts into them."""

import pickle

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rich
from google.rpc import status_pb2

from client.scripted import ScriptedServer, details, fail, fail_bare
from keystow_client import (
    NO_RETRIES,
    AbortedError,
    AlreadyExistsError,
    AsyncClient,
    DataLossError,
    FailedPreconditionError,
    InvalidRequestError,
    KeystowError,
    NotFoundError,
    PermissionDeniedError,
    Recovery,
    ResourceExhaustedError,
    TransportError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    Violation,
    is_object_not_found,
)

Code = grpc.StatusCode


async def failure_of(server: ScriptedServer) -> KeystowError:
    """What one Stat raises, without retries."""
    async with AsyncClient(server.address, retry=NO_RETRIES) as client:
        with pytest.raises(KeystowError) as caught:
            await client.stat("acme", "k")
        return caught.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.INVALID_ARGUMENT, InvalidRequestError),
        (Code.OUT_OF_RANGE, InvalidRequestError),
        (Code.NOT_FOUND, NotFoundError),
        (Code.ALREADY_EXISTS, AlreadyExistsError),
        (Code.FAILED_PRECONDITION, FailedPreconditionError),
        (Code.PERMISSION_DENIED, PermissionDeniedError),
        (Code.UNAUTHENTICATED, UnauthenticatedError),
        (Code.ABORTED, AbortedError),
        (Code.RESOURCE_EXHAUSTED, ResourceExhaustedError),
        (Code.UNAVAILABLE, UnavailableError),
        (Code.UNIMPLEMENTED, UnimplementedError),
        (Code.DATA_LOSS, DataLossError),
        (Code.INTERNAL, KeystowError),
    ],
)
async def test_each_code_has_its_class(server: ScriptedServer, code: Code, kind: type[KeystowError]) -> None:
    """The class says the kind; reason, recovery, message and metadata are the service's."""
    server.storage.next("Stat", fail(code, "SOME_REASON", "wait", metadata={"tenantId": "acme"}))
    error = await failure_of(server)
    assert type(error) is kind
    assert (error.code, error.reason, error.recovery) == (code, "SOME_REASON", Recovery.WAIT)
    assert error.message == "What to do."
    assert error.metadata == {"recovery": "wait", "requestId": "r-1", "tenantId": "acme"}
    assert str(error) == "SOME_REASON: What to do. (requestId r-1)"


async def test_only_one_reason_means_that_an_object_is_absent(server: ScriptedServer) -> None:
    """NOT_FOUND also reports tenants and KMS keys."""
    assert is_object_not_found(await failure_of(server))
    for reason in ("TENANT_NOT_FOUND", "KMS_KEY_NOT_FOUND"):
        server.storage.next("Stat", fail(Code.NOT_FOUND, reason, "none"))
        error = await failure_of(server)
        assert isinstance(error, NotFoundError)
        assert not is_object_not_found(error)
    server.storage.next("Stat", fail_bare(Code.NOT_FOUND))
    assert not is_object_not_found(await failure_of(server))
    assert not is_object_not_found(ValueError())


@pytest.mark.parametrize(
    "code", [Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED, Code.DEADLINE_EXCEEDED]
)
async def test_without_error_info_it_is_the_transport(server: ScriptedServer, code: Code) -> None:
    """What gRPC or a proxy made up is loss of transport, a CANCELLED that nobody asked for among it."""
    server.storage.next("Stat", fail_bare(code))
    error = await failure_of(server)
    assert isinstance(error, TransportError)
    assert (error.code, error.reason, error.recovery) == (code, "", Recovery.RETRY)


@pytest.mark.parametrize("code", [Code.UNIMPLEMENTED, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED])
async def test_other_codes_without_error_info_are_final(server: ScriptedServer, code: Code) -> None:
    """A wrong server or a proxy's refusal is not worth a retry."""
    server.storage.next("Stat", fail_bare(code))
    error = await failure_of(server)
    assert not isinstance(error, TransportError)
    assert (error.code, error.recovery) == (code, Recovery.NONE)


def broken_detail() -> bytes:
    status: status_pb2.Status = details(Code.UNAVAILABLE, "X", "retry")
    status.details[0].value = b"\xff\xff\xff"
    return bytes(status.SerializeToString())


@pytest.mark.parametrize(
    "trailer",
    [
        b"\xff\xff\xff\xff",
        b"",
        b"\x00" * 100,
        broken_detail(),
        status_pb2.Status(code=14).SerializeToString(),
        details(Code.NOT_FOUND, "OBJECT_NOT_FOUND", "none").SerializeToString(),
        details(Code.UNAVAILABLE, "X", "retry", domain="example.com").SerializeToString(),
    ],
    ids=["garbage", "empty", "zeros", "broken detail", "no details", "of another code", "of another domain"],
)
async def test_details_that_are_not_ours_are_ignored(server: ScriptedServer, trailer: bytes) -> None:
    """Garbage, another failure's details and other domains' never raise and never count."""
    server.storage.next("Stat", fail_bare(Code.UNAVAILABLE, ("grpc-status-details-bin", trailer)))
    error = await failure_of(server)
    assert isinstance(error, TransportError)
    assert error.reason == ""


@pytest.mark.parametrize(
    ("code", "recovery"),
    [
        (Code.UNAVAILABLE, "retry"),
        (Code.ABORTED, "restart"),
        (Code.FAILED_PRECONDITION, "wait"),
        (Code.DATA_LOSS, "none"),
    ],
)
async def test_a_recovery_of_the_future_falls_back_on_the_code(
    server: ScriptedServer, code: Code, recovery: str
) -> None:
    """A recovery word that this client does not know is read off the code."""
    server.storage.next("Stat", fail(code, "NEW_REASON", "pray"))
    assert (await failure_of(server)).recovery == recovery


async def test_violations_and_delays_are_read(server: ScriptedServer) -> None:
    """BadRequest, PreconditionFailure, QuotaFailure and RetryInfo, each where the service sends it."""
    bad = rich.BadRequest(field_violations=[{"field": "key", "description": "too long"}])
    broken = rich.PreconditionFailure(
        violations=[{"type": "grant.decrypt", "subject": "arn:aws:kms:…", "description": "not granted"}]
    )
    quota = rich.QuotaFailure(violations=[{"subject": "tenant:acme", "description": "streams"}])
    retry = rich.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    server.storage.next("Stat", fail(Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "none", bad, broken, quota, retry))
    error = await failure_of(server)
    assert error.violations == (
        Violation("key", "too long"),
        Violation("grant.decrypt", "not granted"),
        Violation("tenant:acme", "streams"),
    )
    assert error.retry_after == 2.5


async def test_errors_survive_pickling(server: ScriptedServer) -> None:
    """A worker process can hand its failure to its parent."""
    error = await failure_of(server)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own bytes
    assert type(copy) is NotFoundError
    assert str(copy) == str(error)
    assert (copy.code, copy.recovery, copy.metadata) == (error.code, error.recovery, error.metadata)


async def test_nobody_at_the_address_is_a_transport_error() -> None:
    """A refused connection is the transport's failure."""
    async with AsyncClient("127.0.0.1:1", retry=NO_RETRIES) as client:
        with pytest.raises(TransportError):
            await client.stat("acme", "k")
        with pytest.raises(TransportError):
            await client.put("acme", "k", bytes(3 << 20))
        with pytest.raises(TransportError):
            await client.get("acme", "k")


async def test_what_protobuf_cannot_carry_is_a_value_error(server: ScriptedServer) -> None:
    """Text that is not Unicode, and numbers beyond 64 bits, never leave the client."""
    async with AsyncClient(server.address) as client:
        with pytest.raises(ValueError, match="surrogates"):
            await client.stat("acme", "\udcff")
        with pytest.raises(ValueError, match="out of range"):
            await client.get("acme", "k", offset=1 << 70)


async def test_a_client_that_is_not_open_says_so() -> None:
    """Forgetting the context manager is explained."""
    with pytest.raises(RuntimeError, match="context manager"):
        await AsyncClient().stat("acme", "k")
