"""What CloudTrail says of requests to KMS, from the files that it delivers.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html,
https://docs.aws.amazon.com/kms/latest/developerguide/logging-using-cloudtrail.html. A call to another account's key is
in the logs of both accounts, where the key's owner learns the caller's account and no more.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from keystow_service.adapters.audit.keys import AuditError
from keystow_service.adapters.audit.source import Progress, opened

_SOURCE = "kms.amazonaws.com"
_BY_KMS_ITSELF = "AwsServiceEvent"  # such as a rotation: nobody's request
_CONTEXTS = ("destinationEncryptionContext", "sourceEncryptionContext", "encryptionContext")  # the last one counts most
_SESSION = re.compile(r"arn:(?P<partition>[a-z-]+):sts::(?P<account>[0-9]{12}):assumed-role/(?P<role>[^/]+)/.*")


@dataclass(frozen=True, slots=True)
class KmsEvent:
    """One request that KMS got."""

    time: datetime
    request_id: str
    operation: str
    key: str  # its ARN, or what the request has instead; nothing in some refusals
    context: Mapping[str, str]
    failed: bool
    principal: str  # a role without its path and session, a user, or an account where no more is known
    account: str  # the principal's
    address: str
    file: Path


def cloudtrail_files(paths: Iterable[Path]) -> Sequence[Path]:
    """These, and for directories all *.json and *.json.gz below them. Raises OSError."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*.json*") if each.name.endswith((".json", ".json.gz")))
        else:
            found.append(path)
    return found


def kms_events(path: Path, progress: Progress) -> Iterator[KmsEvent]:
    """The requests to KMS in one CloudTrail log file, of whatever kind. Raises OSError, AuditError."""
    with opened(path) as (file, _):
        text = file.read()
    progress(path.stat().st_size)
    try:
        records = json.loads(text)["Records"]
        for record in records:
            if record["eventSource"] == _SOURCE and record.get("eventType") != _BY_KMS_ITSELF:
                yield _event(record, path)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AuditError(f'{path} is no CloudTrail log file: {{"Records": […]}}, as it is delivered to S3.') from None


def role_of(arn: str) -> str:
    """The principal that an ARN is about: of a role's session the role, of a role with a path the role without it."""
    session = _SESSION.fullmatch(arn)
    if session is not None:
        return f"arn:{session['partition']}:iam::{session['account']}:role/{session['role']}"
    head, is_role, path = arn.partition(":role/")
    return f"{head}:role/{path.rpartition('/')[2]}" if is_role else arn


def _event(record: Mapping[str, Any], path: Path) -> KmsEvent:
    identity = record.get("userIdentity") or {}
    parameters = record.get("requestParameters") or {}
    resources = record.get("resources") or []
    account = str(identity.get("accountId", ""))
    return KmsEvent(
        time=datetime.fromisoformat(record["eventTime"]),
        # Without one it is no request of keystow's, and must not pass for another that has none either.
        request_id=str(record.get("requestID") or f"event {record['eventID']}"),
        operation=record["eventName"],
        key=str(resources[0]["ARN"] if resources else parameters.get("keyId", "")),
        context={name: value for each in _CONTEXTS for name, value in (parameters.get(each) or {}).items()},
        failed=bool(record.get("errorCode")),
        principal=role_of(str(identity["arn"])) if "arn" in identity else account,
        account=account,
        address=str(record.get("sourceIPAddress", "")),
        file=path,
    )
