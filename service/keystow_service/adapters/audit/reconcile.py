"""The audit log against CloudTrail: whether KMS got requests in keystow's name that keystow did not make.

The promise: every request to KMS that CloudTrail shows by keystow's principal, or about a keystow tenant's data by
anyone, and that the audit log does not have, is an alarm. What the audit log has and CloudTrail does not is a note:
CloudTrail delivers late, and some refusals not at all.

Memory grows with the requests to KMS, not with the files: about 500 bytes each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from keystow_service.adapters.audit.cloudtrail import KmsEvent, kms_events, role_of
from keystow_service.adapters.audit.finding import Finding, Kind, torn
from keystow_service.adapters.audit.keys import AuditError
from keystow_service.adapters.audit.line import Entry, parse
from keystow_service.adapters.audit.source import Line, Progress, lines_of, writer_of
from keystow_service.audit import CANCELLED
from keystow_service.errors import InternalError, KmsUnavailableError
from keystow_service.ports import TENANT_CONTEXT

# CloudTrail delivers within about 15 minutes, on average 5
# (https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html).
_DELIVERY = timedelta(minutes=15)
_UNANSWERED = timedelta(minutes=1)  # how far an attempt without an answer may be from its event
_KEYRING_ACCOUNT = "000000000000"

# With one of these, and no id of KMS's, an attempt may have been sent: there was no answer, none that could be read, or
# nobody waited for it any more. All others are answers, or mean that nothing was sent, as without credentials.
_MAY_BE_SENT = frozenset({KmsUnavailableError.reason, InternalError.reason, CANCELLED})


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request to KMS as the audit log has it."""

    time: datetime
    request_id: str
    operation: str
    key: str
    tenant: str
    reason: str
    writer: str
    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class Window:
    """Of times, in which what is missing on either side is told."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, time: datetime) -> bool:
        """Whether it is in it."""
        return (self.since is None or time >= self.since) and (self.until is None or time < self.until)


@dataclass(slots=True)
class Reconciliation:
    """Reads one side, then the other; then tells what it found."""

    window: Window
    principals: set[str]  # ARNs or account ids of keystow's; those of the requests in both are added if there are none
    both: int = 0
    others: int = 0  # requests that are none of keystow's
    uncovered: int = 0  # requests about keys that these CloudTrail files do not tell of
    _attempts: dict[str, Attempt] = field(default_factory=dict)  # by request id
    _unanswered: list[Attempt] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)  # request ids in CloudTrail
    _unknown: list[KmsEvent] = field(default_factory=list)
    _joined: dict[str, str] = field(default_factory=dict)  # principals of requests in both, and their accounts
    _keys: set[str] = field(default_factory=set)  # that CloudTrail tells of
    _newest: datetime | None = None  # of CloudTrail's events

    def read_audit(self, files: Iterable[Path], progress: Progress) -> Iterator[Finding]:
        """All of it, first. Raises OSError, AuditError."""
        for path in files:
            half: Line | None = None
            for line in lines_of(path, progress):
                if half is not None:
                    raise _no_line(half)
                if not line.whole:
                    half = line
                elif b'"event":"kms"' in line.text:
                    attempt = _attempt(line)
                    if attempt.request_id:
                        self._attempts[attempt.request_id] = attempt
                    elif attempt.reason in _MAY_BE_SENT and f":{_KEYRING_ACCOUNT}:" not in attempt.key:
                        self._unanswered.append(attempt)
            if half is not None:
                yield torn(writer_of(path), path, half.number)

    def read_cloudtrail(self, files: Iterable[Path], progress: Progress) -> Iterator[Finding]:
        """All of it, then. Raises OSError, AuditError."""
        for path in files:
            for event in kms_events(path, progress):
                if event.request_id in self._seen:
                    continue  # both accounts' logs, or overlapping ones
                self._seen.add(event.request_id)
                self._keys.add(event.key)
                self._newest = max(event.time, self._newest or event.time)
                attempt = self._attempts.get(event.request_id)
                if attempt is None:
                    self._unknown.append(event)
                    continue
                self.both += 1
                self._joined[event.principal] = event.account
                if difference := _difference(attempt, event):
                    text = f"{_told(event)} is {difference} in the audit log, {attempt.file}:{attempt.line}"
                    yield Finding(Kind.DIFFERS, text, attempt.writer, event.file)

    def findings(self) -> Iterator[Finding]:
        """What is on one side only. Raises AuditError unless it is known which requests are keystow's."""
        self.principals = {role_of(each) for each in self.principals} or set(self._joined)
        if not self.principals:
            raise AuditError(
                "No request to KMS is in both, so nothing says whose requests are keystow's. Name its role with "
                "--principal, and see that the files are of the same time."
            )
        if self._joined and not any(self._is_ours(*each) for each in self._joined.items()):
            raise AuditError(
                f"The requests in both were made by {', '.join(sorted(self._joined))}, and keystow's principal is said "
                f"to be {', '.join(sorted(self.principals))}. Name the right one with --principal."
            )
        for event in sorted(self._unknown, key=lambda event: event.time):
            ours = self._is_ours(event.principal, event.account)
            if not (ours or TENANT_CONTEXT in event.context):
                self.others += 1
            elif ours and (attempt := self._take_unanswered(event)) is not None:
                text = f"{_told(event)} is the request that got no answer ({attempt.reason})"
                yield Finding(Kind.NO_ANSWER, text, attempt.writer, attempt.file, attempt.line)
            elif self.window.holds(event.time):
                yield Finding(Kind.UNKNOWN_CALL, f"{_told(event)} is not in the audit log", "", event.file)
        for attempt in self._attempts.values():
            if attempt.key not in self._keys:
                self.uncovered += 1
            elif attempt.request_id not in self._seen and self.window.holds(attempt.time):
                text = f"{attempt.operation} of {attempt.key} ({attempt.request_id}) {self._why_missing(attempt)}"
                yield Finding(Kind.NOT_IN_CLOUDTRAIL, text, attempt.writer, attempt.file, attempt.line)

    def _is_ours(self, principal: str, account: str) -> bool:
        if principal != account:
            return principal in self.principals or account in self.principals
        return account != "" and any(account in each.split(":") for each in self.principals)

    def _take_unanswered(self, event: KmsEvent) -> Attempt | None:
        """The attempt that this may have been, if there is one that no other event was."""
        for attempt in self._unanswered:
            near = abs(attempt.time - event.time) <= _UNANSWERED
            if near and (attempt.operation, attempt.key, attempt.tenant) == (
                event.operation,
                event.key,
                _tenant(event),
            ):
                self._unanswered.remove(attempt)
                return attempt
        return None

    def _why_missing(self, attempt: Attempt) -> str:
        if attempt.reason == "KMS_ACCESS_DENIED":
            return "is not in CloudTrail: one that was denied is in the log of the caller's account alone"
        if self._newest is None or attempt.time > self._newest - _DELIVERY:
            return "is not in CloudTrail yet: it delivers up to 15 minutes late"
        return "is not in CloudTrail"


def _attempt(line: Line) -> Attempt:
    """Raises AuditError."""
    try:
        entry = parse(line.text)
        return _as_attempt(entry, line)
    except (ValueError, KeyError, TypeError):
        raise _no_line(line) from None


def _no_line(line: Line) -> AuditError:
    return AuditError(f"{line.file}:{line.number} is no line of an audit log. Verify it first.")


def _as_attempt(entry: Entry, line: Line) -> Attempt:
    fields = entry.fields
    return Attempt(
        time=datetime.fromisoformat(fields["time"]),
        request_id=str(fields["kms_request_id"]),
        operation=str(fields["kms_operation"]),
        key=str(fields["kms_key"]),
        tenant=str(fields["context"].get(TENANT_CONTEXT, "")),
        reason=str(fields["reason"]),
        writer=entry.writer,
        file=line.file,
        line=line.number,
    )


def _difference(attempt: Attempt, event: KmsEvent) -> str:
    """What the two sides of one request say otherwise; empty if they agree."""
    told = bool(event.context) or not event.failed  # what was refused may be told without its parameters
    agree = {
        "operation": attempt.operation == event.operation,
        "key": attempt.key.endswith(event.key),
        "tenant": attempt.tenant == _tenant(event) or not told,
        "outcome": bool(attempt.reason) == event.failed,
    }
    return ", ".join(f"of another {what}" for what, same in agree.items() if not same)


def _tenant(event: KmsEvent) -> str:
    return event.context.get(TENANT_CONTEXT, "")


def _told(event: KmsEvent) -> str:
    tenant = f" for {_tenant(event)}" if _tenant(event) else ""
    who = f"by {event.principal} from {event.address}"
    return f"{event.operation} of {event.key}{tenant} at {event.time:%Y-%m-%dT%H:%M:%SZ} {who} ({event.request_id})"
