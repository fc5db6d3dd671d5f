"""The table of errors (errors.py, rpc/status.py): complete, consistent, and what docs/errors.md says."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from keystow_service import errors
from keystow_service.errors import Details, KeystowError, Recovery, Violation
from keystow_service.model import MAX_KEY_SIZE
from keystow_service.rpc.status import STATUS, document, reasons, to_status

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"
REQUEST_ID = "0123456789abcdef"


def subclasses(parent: type[KeystowError] = KeystowError) -> Iterator[type[KeystowError]]:
    """All there are, wherever they are defined."""
    for child in parent.__subclasses__():
        yield child
        yield from subclasses(child)


NAMED = sorted((error for error in set(subclasses()) if hasattr(error, "reason")), key=lambda error: error.reason)
GROUPS = [error for error in set(subclasses()) if not hasattr(error, "reason")]

every_error = pytest.mark.parametrize("error", [pytest.param(error, id=error.reason) for error in NAMED])


@every_error
def test_every_error_is_mapped(error: type[KeystowError]) -> None:
    """Each class with a reason has its code, what helps, a condition in words, and a place in the document."""
    assert error in STATUS
    assert isinstance(error.recovery, Recovery)
    assert inspect.getdoc(error) not in {None, inspect.getdoc(KeystowError)}
    assert error in set(reasons())


def test_groups_are_never_raised_as_such() -> None:
    """A class without a reason has subclasses that have one, and is itself not in the table."""
    for group in GROUPS:
        assert group not in STATUS
        assert group.__subclasses__()


def test_nothing_is_mapped_that_is_not_there() -> None:
    """The table has no rows left over."""
    assert set(STATUS) == set(NAMED)


def test_reasons_are_names_of_their_own() -> None:
    """Clients branch on the reason: it is one class's, and an UPPER_SNAKE_CASE name as google.rpc.ErrorInfo asks."""
    names = [error.reason for error in NAMED]
    assert sorted(set(names)) == names
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", name) and len(name) <= 63 for name in names)


def test_the_document_is_the_table() -> None:
    """docs/errors.md is what the code says: `make docs` writes it."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()


@pytest.mark.parametrize(("code", "recoveries"), [("UNAVAILABLE", {"retry"}), ("ABORTED", {"restart", "none"})])
def test_codes_and_recoveries_agree(code: str, recoveries: set[str]) -> None:
    """Clients that know codes only are not misled: UNAVAILABLE is to be retried, ABORTED never blindly."""
    assert {error.recovery.value for error in NAMED if STATUS[error].name == code} <= recoveries


@every_error
def test_a_status_carries_one_error_info(error: type[KeystowError]) -> None:
    """Exactly one, first, with the domain, the reason, what helps, and the request's id."""
    status = to_status(error("Do this."), request_id=REQUEST_ID, about={"tenantId": "acme"})
    assert (status.code, status.message) == (STATUS[error].value[0], "Do this.")
    [info] = unpacked(status, error_details_pb2.ErrorInfo())
    assert status.details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    assert (info.domain, info.reason) == ("keystow", error.reason)
    assert info.metadata == {"tenantId": "acme", "requestId": REQUEST_ID, "recovery": error.recovery.value}


# The longest of everything that a status tells.
LONGEST_MESSAGE = "m" * 700
LONGEST_ABOUT = dict.fromkeys(("tenantId", "objectKey", "uploadId"), "x" * MAX_KEY_SIZE)
LONGEST_DETAILS: Details = {
    "key_arn": "a" * 128,
    "key_state": "PENDING_DELETION",
    "persisted_size": "9" * 19,
    "aws_request_id": "r" * 36,
}
MANY_VIOLATIONS = [Violation(f"field_{number}", "must be something else " * 5) for number in range(50)]


@every_error
def test_a_status_stays_small(error: type[KeystowError]) -> None:
    """Under 4 KiB in the worst case: what is over the transport's limit for metadata reaches nobody."""
    worst = error(LONGEST_MESSAGE, violations=MANY_VIOLATIONS, retry_after=3600.5, **LONGEST_DETAILS)
    status = to_status(worst, request_id=REQUEST_ID, about=LONGEST_ABOUT)
    assert status.ByteSize() <= 4096
    [info] = unpacked(status, error_details_pb2.ErrorInfo())
    assert info.metadata["awsRequestId"] == "r" * 36
    assert [retry.retry_delay.ToMilliseconds() for retry in unpacked(status, error_details_pb2.RetryInfo())] == [
        3600500
    ]


def test_violations_are_told_as_what_they_are() -> None:
    """Fields of a request, failed checks of a key, and used-up quotas each have their own detail."""
    violations = [Violation("one", "is wrong"), Violation("two", "is wrong too")]
    bad = details_of(errors.RequestInvalidError("Bad.", violations=violations), error_details_pb2.BadRequest())
    assert [(each.field, each.description) for each in bad.field_violations] == [
        ("one", "is wrong"),
        ("two", "is wrong too"),
    ]
    unusable = errors.KmsKeyUnusableError("Bad.", violations=violations, key_arn="arn")
    precondition = details_of(unusable, error_details_pb2.PreconditionFailure())
    assert [(each.type, each.subject) for each in precondition.violations] == [("one", "arn"), ("two", "arn")]
    quota = details_of(errors.OverloadedError("Bad.", violations=violations), error_details_pb2.QuotaFailure())
    assert [each.subject for each in quota.violations] == ["one", "two"]


def details_of(error: KeystowError, kind: Message) -> Any:
    """The one detail of that kind."""
    [detail] = unpacked(to_status(error, request_id=REQUEST_ID, about={}), kind)
    return detail


def unpacked(status: status_pb2.Status, kind: Message) -> list[Any]:
    """All details of that kind."""
    found = []
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            message = type(kind)()
            detail.Unpack(message)
            found.append(message)
    return found
