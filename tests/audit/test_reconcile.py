"""``keystow-service audit reconcile``: a server's audit log against the CloudTrail of the KMS that it used."""

import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from audit.command import audit
from audit.writing import ARN, action, files_of, kms, lines_of, rpc, write
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from keystow_service.adapters.audit.finding import Finding, Kind
from keystow_service.adapters.audit.keys import AuditError
from keystow_service.adapters.audit.reconcile import Reconciliation, Window
from keystow_service.audit import KmsAttempt
from rpc.wire import failure, get, put
from servers.in_process import Server, register
from servers.kms.faults import Drop, Fault
from servers.kms.keys import Key
from servers.kms.log import cloudtrail
from servers.kms.principals import CUSTOMER, CUSTOMER_ACCOUNT, PROVIDER, PROVIDER_ACCOUNT, PROVIDER_ROLE
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import client_of
from servers.on_kms import serving_on_kms

ROLE = "arn:aws:iam::444455556666:role/keystow"

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"
CONTEXT = {"keystow:tenant": TENANT, "keystow:deployment": "tests", "keystow:purpose": "data-key"}


@dataclass(frozen=True, slots=True)
class Case:
    """A server that has stored and read something for a tenant with a key of its own."""

    folder: Path
    server: Server
    kms: FaithfulKms
    key: Key

    def trail(self, account: str) -> Path:
        """What CloudTrail delivers to an account."""
        path = self.folder / f"{account}.json.gz"
        path.write_bytes(gzip.compress(json.dumps(cloudtrail(self.kms.requests, account)).encode()))
        return path

    def reconcile(self, *trails: Path, principals: Iterable[str] = (), window: Window | None = None) -> "Found":
        """With these files of CloudTrail, or those of both accounts."""
        both = Reconciliation(window or Window(), set(principals))
        ours = files_of(self.folder / "data" / "audit")
        theirs = trails or (self.trail(PROVIDER_ACCOUNT), self.trail(CUSTOMER_ACCOUNT))
        found = [*both.read_audit(ours, _quiet), *both.read_cloudtrail(theirs, _quiet), *both.findings()]
        wrong = [finding for finding in found if not finding.is_note]
        return Found(both, wrong, [finding for finding in found if finding.is_note])

    def told_otherwise(self, change: Callable[[dict[str, Any]], None]) -> Path:
        """The provider's CloudTrail, with every event changed."""
        trail = json.loads(gzip.decompress(self.trail(PROVIDER_ACCOUNT).read_bytes()))
        for event in trail["Records"]:
            change(event)
        path = self.folder / "otherwise.json"
        path.write_text(json.dumps(trail))
        return path


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it."""

    both: Reconciliation
    wrong: Sequence[Finding]
    notes: Sequence[Finding]


def event(operation: str, request_id: str, *, tenant: str | None = "acme") -> Mapping[str, object]:
    """A request by keystow's role, just now, as CloudTrail has it."""
    return {
        "eventSource": "kms.amazonaws.com",
        "eventName": operation,
        "eventTime": datetime.now(UTC).isoformat(timespec="seconds"),
        "requestID": request_id,
        "userIdentity": {"arn": ROLE, "accountId": "444455556666"},
        "requestParameters": {"encryptionContext": {"keystow:tenant": tenant}} if tenant else {},
        "resources": [{"ARN": ARN.text}],
    }


def reconciled(directory: Path, *events: Mapping[str, object], principals: Iterable[str] = ()) -> Sequence[Finding]:
    """What comes of the log in a directory and these events."""
    trail = directory / "trail.json"
    trail.write_text(json.dumps({"Records": events}))
    both = Reconciliation(Window(), set(principals))
    ours = files_of(directory)
    return [*both.read_audit(ours, _quiet), *both.read_cloudtrail([trail], _quiet), *both.findings()]


def _quiet(_: int) -> None:
    """Nobody watches the progress."""


@pytest_asyncio.fixture(loop_scope="session")
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    settings = {"audit_on_failure": "refuse", "key_probe_interval": 3600}
    async with faithful_kms() as kms, serving_on_kms(kms, tmp_path / "data", **settings) as server:
        key = kms.create_key(TENANT)
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        await put(server, TENANT, "key", b"content")
        await get(server, TENANT, "key")
        yield Case(tmp_path, server, kms, key)


async def test_nothing_else_was_done(case: Case) -> None:
    """Uses, refusals, and what the customer does to the key: every request of ours is on both sides, and no other."""
    other = case.kms.create_key("umbrella")
    await register(case.server, "umbrella", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=other.arn)
    other.disable()
    assert (await failure(put(case.server, "umbrella", "key", b""))).reason == "KMS_KEY_DISABLED"
    async with client_of(case.kms, CUSTOMER) as customer:
        await customer.describe_key(KeyId=case.key.arn)
    found = case.reconcile()
    assert (found.wrong, found.notes) == ([], [])
    ours = [each for each in case.kms.requests if each.principal is PROVIDER]
    assert (found.both.both, found.both.others, found.both.uncovered) == (len(ours), 1, 0)


@pytest.mark.parametrize("account", [PROVIDER_ACCOUNT, CUSTOMER_ACCOUNT], ids=["ours", "the customer's"])
async def test_a_call_behind_our_back(case: Case, account: str) -> None:
    """Somebody who has the service's credentials unwraps a data key: an alarm, in either account's log."""
    async with client_of(case.kms, PROVIDER) as thief:
        made = await thief.generate_data_key(KeyId=case.key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
        await thief.decrypt(KeyId=case.key.arn, CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
        await thief.describe_key(KeyId=case.key.arn)
    stolen = [each.request_id for each in case.kms.requests[-3:]]
    found = case.reconcile(case.trail(account))
    assert [finding.kind for finding in found.wrong] == [Kind.UNKNOWN_CALL] * 3
    assert {request_id for finding in found.wrong for request_id in stolen if request_id in finding.text} == set(stolen)
    assert [f" for {TENANT} at " in finding.text for finding in found.wrong].count(True) == 2
    assert len(case.reconcile(case.trail(account), principals=[PROVIDER_ROLE]).wrong) == 3


async def test_requests_of_other_kinds(case: Case) -> None:
    """The service makes three kinds of requests. Others in its name are alarms, each of them, whatever they lack."""
    trail = json.loads(gzip.decompress(case.trail(PROVIDER_ACCOUNT).read_bytes()))
    stolen = next(event for event in trail["Records"] if event["eventName"] == "Decrypt")
    context = stolen["requestParameters"]["encryptionContext"]
    moved = {"sourceEncryptionContext": context, "sourceKeyId": case.key.arn}
    without_id = {name: value for name, value in stolen.items() if name != "requestID"}
    trail["Records"] += [
        {**stolen, "eventName": "ReEncrypt", "requestID": "moved", "requestParameters": moved},
        {**stolen, "eventName": "CreateGrant", "requestID": "granted", "requestParameters": None},
        {**without_id, "eventID": "first"},
        {**without_id, "eventID": "second", "requestID": None},
    ]
    path = case.folder / "more.json"
    path.write_text(json.dumps(trail))
    wrong = case.reconcile(path).wrong
    assert [finding.kind for finding in wrong] == [Kind.UNKNOWN_CALL] * 4
    [told] = [finding.text for finding in wrong if finding.text.startswith("ReEncrypt of ")]
    assert f" for {TENANT} at " in told


async def test_what_services_do_by_themselves(case: Case) -> None:
    """KMS rotates keys, and other services use theirs: that is nobody's request, or theirs, and no alarm."""
    trail = json.loads(gzip.decompress(case.trail(PROVIDER_ACCOUNT).read_bytes()))
    event = {**trail["Records"][0], "requestParameters": None, "requestID": "service's"}
    by_kms = {"accountId": PROVIDER_ACCOUNT, "invokedBy": "AWS Internal"}
    trail["Records"] += [
        {**event, "eventName": "RotateKey", "eventType": "AwsServiceEvent", "userIdentity": by_kms, "requestID": None},
        {**event, "eventName": "Decrypt", "userIdentity": {"type": "AWSService", "invokedBy": "rds.amazonaws.com"}},
    ]
    path = case.folder / "more.json"
    path.write_text(json.dumps(trail))
    found = case.reconcile(path)
    assert (found.wrong, found.both.others) == ([], 1)


async def test_somebody_elses_call_in_a_tenants_context(case: Case) -> None:
    """Whoever unwraps a tenant's data key, it is an alarm; what others do with a key besides is theirs."""
    async with client_of(case.kms, CUSTOMER) as customer:
        await customer.generate_data_key(KeyId=case.key.arn, KeySpec="AES_256")
        await customer.generate_data_key(KeyId=case.key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
    found = case.reconcile()
    [wrong] = found.wrong
    assert f"by {CUSTOMER.arn} from 127.0.0.1" in wrong.text
    assert found.both.others == 1


async def test_an_answer_that_was_lost(case: Case) -> None:
    """A request whose answer never came is known by what it was and when; once: a second such one is an alarm."""
    key = case.kms.create_key("umbrella")
    await register(case.server, "umbrella", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
    case.kms.faults.fail_next(Fault(drop=Drop.ANSWER), operation="GenerateDataKey")
    await put(case.server, "umbrella", "key", b"")  # at the second attempt
    found = case.reconcile()
    assert ([note.kind for note in found.notes], found.wrong) == ([Kind.NO_ANSWER], [])
    async with client_of(case.kms, PROVIDER) as thief:
        context = {**CONTEXT, "keystow:tenant": "umbrella"}
        await thief.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=context)
    assert [finding.kind for finding in case.reconcile().wrong] == [Kind.UNKNOWN_CALL]


async def test_only_ours_can_be_the_unanswered_one(case: Case) -> None:
    """What another principal does at that moment is an alarm, though it is the same request."""
    key = case.kms.create_key("umbrella")
    await register(case.server, "umbrella", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
    case.kms.faults.fail_next(Fault(drop=Drop.REQUEST), operation="GenerateDataKey")
    await put(case.server, "umbrella", "key", b"")  # at the second attempt
    async with client_of(case.kms, CUSTOMER) as customer:
        context = {**CONTEXT, "keystow:tenant": "umbrella"}
        await customer.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=context)
    for principals in ([], [PROVIDER_ROLE]):
        found = case.reconcile(principals=principals)
        assert ([finding.kind for finding in found.wrong], found.notes) == ([Kind.UNKNOWN_CALL], [])
        assert f"by {CUSTOMER.arn} from 127.0.0.1" in found.wrong[0].text


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("KMS_UNAVAILABLE", Kind.NO_ANSWER),
        ("CANCELLED", Kind.NO_ANSWER),
        ("INTERNAL", Kind.NO_ANSWER),
        ("PROVIDER_CREDENTIALS", Kind.UNKNOWN_CALL),
        ("WRAPPED_KEY_INVALID", Kind.UNKNOWN_CALL),
    ],
)
async def test_what_may_have_been_sent(tmp_path: Path, reason: str, kind: Kind) -> None:
    """An attempt for which there were no credentials was not sent, so no event is its."""
    lost = KmsAttempt(action(), "Decrypt", ARN, {"keystow:tenant": "acme"}, "", reason, 0.125)
    await write(tmp_path, [kms(), lost])
    found = reconciled(tmp_path, event("GenerateDataKey", "kms-request-0"), event("Decrypt", "kms-request-1"))
    assert [finding.kind for finding in found] == [kind]


async def test_the_log_of_a_killed_writer(tmp_path: Path) -> None:
    """Half a line at its very end is noted, as verify does; the rest is compared, and so is what else is wrong."""
    await write(tmp_path, [kms(), kms(1)])
    [file] = files_of(tmp_path)
    *before, last, _, _ = lines_of(file)
    assert b'"event":"kms"' in last
    file.write_bytes(b"\n".join((*before, last[:-30])))
    events = event("GenerateDataKey", "kms-request-0"), event("Decrypt", "somebody's")
    note, wrong = reconciled(tmp_path, *events)
    assert (note.kind, note.line, note.writer) == (Kind.TORN, len(before) + 1, file.name.partition(".")[0])
    assert wrong.kind is Kind.UNKNOWN_CALL


async def test_a_line_without_an_end_among_others(tmp_path: Path) -> None:
    """That is no kill's doing, and what it hides would not be compared."""
    await write(tmp_path, [kms(), kms(1)])
    [file] = files_of(tmp_path)
    start, first, *others = lines_of(file)
    file.write_bytes(b"\n".join((start, first, b"x" * 100_000, *others, b"")))
    with pytest.raises(AuditError, match=f"{file}:3 is no line of an audit log"):
        reconciled(tmp_path, event("GenerateDataKey", "kms-request-0"))


async def test_nothing_says_who_keystow_is(tmp_path: Path) -> None:
    """With no request in both and no principal named, nothing was compared; that must not look as if all were well."""
    await write(tmp_path, [rpc()])
    theirs = event("GenerateDataKey", "somebody's", tenant=None)
    with pytest.raises(AuditError, match="--principal"):
        reconciled(tmp_path, theirs)
    [wrong] = reconciled(tmp_path, theirs, principals=[ROLE])
    assert wrong.kind is Kind.UNKNOWN_CALL


async def test_another_principal_than_keystows(tmp_path: Path) -> None:
    """Whoever names another one than made the requests in both would not see what keystow's does besides."""
    await write(tmp_path, [kms()])
    events = event("GenerateDataKey", "kms-request-0"), event("DescribeKey", "somebody's", tenant=None)
    with pytest.raises(AuditError, match=f"were made by {ROLE}"):
        reconciled(tmp_path, *events, principals=["arn:aws:iam::444455556666:role/key-stow"])
    [wrong] = reconciled(tmp_path, *events, principals=["444455556666"])
    assert wrong.kind is Kind.UNKNOWN_CALL


async def test_what_a_customers_log_lacks(case: Case) -> None:
    """It has no refusals for want of permission, which are noted, and nothing about others' keys, which are counted."""
    await put(case.server, await register(case.server, "provider-managed"), "key", b"content")
    found = case.reconcile(case.trail(CUSTOMER_ACCOUNT))
    denied = {each.request_id for each in case.kms.requests if each.answer == "AccessDeniedException"}
    assert len(found.notes) == len(denied) > 0
    assert all("in the log of the caller's account alone" in note.text for note in found.notes)
    assert found.both.uncovered == len([each for each in case.kms.requests if each.key_arn != case.key.arn])
    assert found.wrong == []


async def test_late_events(case: Case) -> None:
    """What CloudTrail has not delivered yet is told as such, or, outside a time that one chooses, not at all."""
    last = case.kms.requests.pop()
    [note] = case.reconcile().notes
    assert note.kind is Kind.NOT_IN_CLOUDTRAIL
    assert last.request_id in note.text
    assert "up to 15 minutes late" in note.text
    assert case.reconcile(window=Window(since=last.time + timedelta(minutes=1))).notes == []
    assert case.reconcile(window=Window(until=last.time - timedelta(hours=1))).notes == []


async def test_a_request_that_is_told_otherwise(case: Case) -> None:
    """The two sides of one request must agree on key, tenant and outcome."""

    def change(event: dict[str, Any]) -> None:
        if event["eventName"] == "Decrypt":
            event["requestParameters"]["encryptionContext"]["keystow:tenant"] = "umbrella"
            event["errorCode"] = "DisabledException"

    wrong = case.reconcile(case.told_otherwise(change)).wrong
    assert {finding.kind for finding in wrong} == {Kind.DIFFERS}
    assert "is of another tenant, of another outcome in the audit log" in wrong[0].text


async def test_refusals_without_parameters(case: Case) -> None:
    """AWS tells some refusals without key and context; they are the same requests all the same."""
    refused = []

    def change(event: dict[str, Any]) -> None:
        if event.get("errorCode") == "AccessDenied":
            refused.append(event)
            event |= {"requestParameters": None, "resources": None}

    found = case.reconcile(case.told_otherwise(change))
    assert refused
    assert (found.wrong, found.notes) == ([], [])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"Records": [1]}', '{"Records": null}'])
async def test_no_cloudtrail_file(tmp_path: Path, content: str) -> None:
    """What is none is told in words."""
    path = tmp_path / "trail.json"
    path.write_text(content)
    with pytest.raises(AuditError, match=r"trail\.json is no CloudTrail log file"):
        list(Reconciliation(Window(), set()).read_cloudtrail([path], lambda _: None))


async def test_the_command(case: Case) -> None:
    """Directories and files, text and JSON, windows, exit codes."""
    case.trail(CUSTOMER_ACCOUNT)
    arguments = ["reconcile", "data/audit", "--cloudtrail", ".", "--principal", PROVIDER_ROLE, "--since", "2026-01-01"]
    said = audit(case.folder, *arguments)
    assert said.code == 0
    first, second = said.output.splitlines()[-2:]
    denied = [each for each in case.kms.requests if each.answer == "AccessDeniedException"]
    assert first.endswith(f" requests to KMS are in both: nothing wrong, {len(denied)} to note")
    assert second == f"of keystow: {PROVIDER_ROLE}; 0 by others"
    async with client_of(case.kms, PROVIDER) as thief:
        await thief.describe_key(KeyId=case.key.arn)
    case.trail(CUSTOMER_ACCOUNT)
    said = audit(case.folder, *arguments, "--json")
    assert said.code == 1
    *found, last = said.objects
    assert [each["kind"] for each in found if each["wrong"]] == ["unknown-call"]
    assert last["summary"]["wrong"] == 1
    said = audit(case.folder, "reconcile", "data/audit", "--cloudtrail", "nowhere")
    assert (said.code, said.errors) == (2, "keystow-service: nowhere cannot be read: No such file or directory\n")
