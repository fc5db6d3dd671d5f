"""Every way in which KMS fails the use of a tenant's key, and all that the caller must be told."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import grpc

from servers.kms.documents import denying, owner_policy, tenant_policy
from servers.kms.faults import Drop, Fault
from servers.kms.keys import Key
from servers.kms.principals import CUSTOMER_ACCOUNT, PROVIDER
from servers.kms.service import FaithfulKms
from servers.kms.situations import bring
from servers.kms.states import PENDING, TEXTS, State

# Brings the key, or KMS, or our own credentials, into the situation. What it answers is awaited, if it can be.
Situation: TypeAlias = Callable[[FaithfulKms, Key], object]

REGION = "us-east-1"
USES = ("GenerateDataKey", "Decrypt")

_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Told:
    """A status, and what else goes with it."""

    code: grpc.StatusCode
    reason: str
    recovery: str
    key_state: str | None = None
    delay: bool = False  # is told
    answered: bool = True  # by KMS: the request's id is told
    dated: bool = False  # the time of the deletion is told


@dataclass(frozen=True, slots=True)
class Row:
    """In the ``situation`` these calls end so. ``state``: the key must be of a kind that gets there."""

    case: str
    situation: Situation
    told: Told
    state: State = State.ENABLED
    calls: tuple[str, ...] = ("Put", "Get", "Export")


DISABLED = Told(_Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait", "DISABLED")
PENDING_DELETION = Told(_Code.FAILED_PRECONDITION, "KMS_KEY_PENDING_DELETION", "wait", "PENDING_DELETION")
PENDING_IMPORT = Told(_Code.FAILED_PRECONDITION, "KMS_KEY_PENDING_IMPORT", "wait", "PENDING_IMPORT")
STORE_UNAVAILABLE = Told(_Code.UNAVAILABLE, "KMS_KEY_STORE_UNAVAILABLE", "retry", "UNAVAILABLE")
TRANSITIONING = Told(_Code.UNAVAILABLE, "KMS_KEY_TRANSITIONING", "retry", "UNAVAILABLE")
NOT_FOUND = Told(_Code.NOT_FOUND, "KMS_KEY_NOT_FOUND", "none", "NOT_FOUND")
ACCESS_DENIED = Told(_Code.PERMISSION_DENIED, "KMS_ACCESS_DENIED", "wait", "ACCESS_DENIED")
USAGE_INVALID = Told(_Code.FAILED_PRECONDITION, "KMS_KEY_USAGE_INVALID", "none")
GRANT_INVALID = Told(_Code.PERMISSION_DENIED, "KMS_GRANT_INVALID", "none", "ACCESS_DENIED")
WRAPPED_KEY_INVALID = Told(_Code.DATA_LOSS, "WRAPPED_KEY_INVALID", "none")
UNAVAILABLE = Told(_Code.UNAVAILABLE, "KMS_UNAVAILABLE", "retry", delay=True)
UNANSWERED = replace(UNAVAILABLE, answered=False)
THROTTLED = Told(_Code.RESOURCE_EXHAUSTED, "KMS_THROTTLED", "retry", delay=True)
CREDENTIALS = Told(_Code.UNAVAILABLE, "PROVIDER_CREDENTIALS", "retry")
INTERNAL = Told(_Code.INTERNAL, "INTERNAL", "retry")


def rows() -> Iterator[Row]:
    """All of them."""
    yield from _states()
    yield from _permissions()
    yield from _faults()
    yield from _credentials()
    yield from _outages()


def _states() -> Iterator[Row]:
    def row(state: State, told: Told, *, code: str = "", described: bool = True) -> Row:
        def situation(kms: FaithfulKms, key: Key) -> None:
            bring(kms, key, state)
            if not described:
                key.put_policy(denying(key.standing.policy, "DescribeKey"))
            if state in PENDING:
                key.pending_code = code
            elif code:
                kms.faults.fail_always(Fault(code, f"{key.arn} {TEXTS[state]}"), *USES)

        case = f"{state}, as {code}" if code else state.value
        return Row(case if described else f"{case}, DescribeKey denied", situation, told, state)

    yield row(State.DISABLED, DISABLED)
    yield row(State.DISABLED, DISABLED, described=False)
    for state in (State.PENDING_DELETION, State.PENDING_REPLICA_DELETION):
        for code in ("KMSInvalidStateException", "DisabledException"):
            for described in (True, False):
                told = replace(PENDING_DELETION, dated=described and state is State.PENDING_DELETION)
                yield row(state, told, code=code, described=described)
    yield row(State.PENDING_IMPORT, PENDING_IMPORT)
    yield row(State.UNAVAILABLE, STORE_UNAVAILABLE)
    yield row(State.CREATING, TRANSITIONING)
    # A key that is Updating works, by AWS's documentation; if it did not:
    yield row(State.UPDATING, TRANSITIONING, code="KMSInvalidStateException")
    yield row(State.DELETED, NOT_FOUND)
    yield Row("deleted after pending deletion", _deleted_in_time, NOT_FOUND)
    yield Row("deleted, and hidden from other accounts", _deleted_and_hidden, ACCESS_DENIED)


def _deleted_in_time(_kms: FaithfulKms, key: Key) -> None:
    key.schedule_deletion()
    key.delete()


def _deleted_and_hidden(kms: FaithfulKms, key: Key) -> None:
    key.delete()
    kms.hides_missing_keys = True


def _permissions() -> Iterator[Row]:
    def of_policy(case: str, *tenants: str) -> Row:
        document = tenant_policy(CUSTOMER_ACCOUNT, *tenants) if tenants else owner_policy(CUSTOMER_ACCOUNT)
        return Row(f"policy: {case}", lambda _, key: key.put_policy(document), ACCESS_DENIED)

    yield of_policy("nothing for the provider")
    yield of_policy("for another tenant", "another-tenant")
    yield Row("policy: denied", lambda _, key: key.put_policy(denying(key.standing.policy, *USES)), ACCESS_DENIED)
    yield Row("IAM of our own role", _without_iam, ACCESS_DENIED)


def _without_iam(kms: FaithfulKms, _key: Key) -> None:
    kms.principals.add(replace(PROVIDER, iam=()))


def _faults() -> Iterator[Row]:
    """What a key cannot be brought to once its tenant is registered, or only AWS can do."""

    def row(code: str, told: Told, status: int = 400, calls: tuple[str, ...] = ("Put", "Get", "Export")) -> Row:
        fault = Fault(code, "foreign text", status)
        return Row(code, lambda kms, _: kms.faults.fail_always(fault, *USES), told, calls=calls)

    yield row("NotFoundException", NOT_FOUND)
    yield row("InvalidKeyUsageException", USAGE_INVALID)
    yield row("InvalidGrantTokenException", GRANT_INVALID)
    yield row("IncorrectKeyException", WRAPPED_KEY_INVALID, calls=("Get", "Export"))
    yield row("InvalidCiphertextException", WRAPPED_KEY_INVALID, calls=("Get", "Export"))
    yield row("KeyUnavailableException", UNAVAILABLE, 500)
    yield row("DependencyTimeoutException", UNAVAILABLE, 503)
    yield row("KMSInternalException", UNAVAILABLE, 500)
    yield row("LimitExceededException", THROTTLED)
    yield row("SomethingNewException", INTERNAL)
    yield Row("throttled", lambda kms, _: kms.faults.limit(per_second=0, burst=0), THROTTLED)


def _credentials() -> Iterator[Row]:
    yield Row("expired credentials", lambda kms, _: kms.principals.expire(PROVIDER), CREDENTIALS)
    yield Row("deleted access key", lambda kms, _: kms.principals.remove(PROVIDER), CREDENTIALS)
    yield Row(
        "another secret",
        lambda kms, _: kms.principals.add(replace(PROVIDER, secret_access_key="another")),
        CREDENTIALS,
    )


def _outages() -> Iterator[Row]:
    yield Row("connection refused", lambda kms, _: kms.servers[REGION].stop(), UNANSWERED)
    yield Row("request dropped", lambda kms, _: kms.faults.fail_always(Fault(drop=Drop.REQUEST)), UNANSWERED)
    yield Row("answer dropped", lambda kms, _: kms.faults.fail_always(Fault(drop=Drop.ANSWER)), UNANSWERED)
    yield Row("no answer", _silent, UNANSWERED)
    page = Fault(status=502, body=b"<html>foreign text</html>")
    yield Row("a proxy's page", lambda kms, _: kms.faults.fail_always(page), UNANSWERED)


def _silent(kms: FaithfulKms, _key: Key) -> None:
    for operation in USES:
        kms.faults.hold(operation)
