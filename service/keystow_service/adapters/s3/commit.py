"""What the two commits of S3, a PutObject and a Complete, have in common: their condition, and what answers mean.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypedDict

from keystow_service.adapters.s3.faults import (
    INVALID_PART,
    NO_SUCH_KEY,
    PRECONDITION_FAILED,
    S3Fault,
    Verdict,
)
from keystow_service.errors import UploadExpiredError, UploadSupersededError, WriteConflictError
from keystow_service.ports import ConditionFailed, Matches, OutcomeUnknown, WriteCondition


class Condition(TypedDict, total=False):
    """The arguments that make a commit conditional."""

    IfMatch: str
    IfNoneMatch: Literal["*"]


def arguments(condition: WriteCondition) -> Condition:
    """As S3 takes them."""
    return {"IfMatch": condition.etag} if isinstance(condition, Matches) else {"IfNoneMatch": "*"}


@contextmanager
def commit_answers() -> Iterator[None]:
    """What S3's answers mean to a commit."""
    try:
        yield
    except S3Fault as fault:
        if fault.code in (PRECONDITION_FAILED, NO_SUCH_KEY):  # NoSuchKey: If-Match, and nothing stands there
            raise ConditionFailed from None
        if fault.code == INVALID_PART:  # Complete named the ETag of a part that has another now
            raise superseded() from None
        if fault.verdict is Verdict.CONFLICT:
            raise WriteConflictError("Another write or delete of the object was under way. Begin again.") from None
        if fault.verdict is Verdict.UNKNOWN:
            raise OutcomeUnknown from None
        raise fault.error from None


def expired() -> UploadExpiredError:
    """S3 has no such upload."""
    return UploadExpiredError("The store no longer knows the upload: it was aborted, or its time is over. Begin again.")


def superseded() -> UploadSupersededError:
    """Another writer has sent one of the parts again."""
    return UploadSupersededError("Another stream has continued this upload. Leave it to that one, or put anew.")
