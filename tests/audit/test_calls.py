"""A server's audit log, with its keys in the faithful KMS: one record for each call and for each request to KMS.

The server is told to refuse what it cannot record, so that what was answered is in the file.
"""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from audit.writing import entries_of, files_of, lines_of, open_log
from keystow.storage.v1.object_pb2 import WrappedDataKey
from keystow.v1.storage_pb2 import (
    ERROR_POLICY_CONTINUE,
    AbortPutRequest,
    DeleteRequest,
    GetRequest,
    GetServerInfoRequest,
    ListRequest,
    PutHeader,
    PutSmallRequest,
    StatRequest,
)
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF, GetTenantRequest
from keystow_service.adapters.audit.keys import AuditFiles, load_object_hashes, load_signing_key
from keystow_service.adapters.audit.verify import verify
from keystow_service.adapters.kms import open_kms
from keystow_service.envelope.header import encode, parse
from keystow_service.envelope.layout import HEADER_LENGTH
from keystow_service.errors import WrappedKeyInvalidError
from keystow_service.keys.audited import AuditedKeyService
from keystow_service.model import KeyArn
from rpc.exports import export, request
from rpc.interrupted import PART, begin, interrupted
from rpc.wire import (
    MIB,
    TIMEOUT,
    chunk,
    content,
    failure,
    get,
    header,
    new_upload_id,
    put,
    refused,
    send,
    send_put,
    until,
)
from servers.in_process import Server, register, serving
from servers.kms.faults import Fault
from servers.kms.keys import Key
from servers.kms.principals import CUSTOMER
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import client_of, session_of
from servers.on_kms import serving_on_kms
from tls.port import answer, write_files

pytestmark = pytest.mark.asyncio(loop_scope="session")

Entry = Mapping[str, Any]

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kms() -> AsyncIterator[FaithfulKms]:
    async with faithful_kms() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(kms: FaithfulKms, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Nothing in it asks KMS by itself while a test runs."""
    settings = {"audit_on_failure": "refuse", "key_probe_interval": 3600, "lease_refresh": 200, "lease_bound": 300}
    async with serving_on_kms(kms, tmp_path_factory.mktemp("data"), **settings) as running:
        yield running


class Watch:
    """What came to the log since it began to watch."""

    def __init__(self, server: Server) -> None:
        self._directory = server.data_dir / "audit"
        self._before = len(entries_of(self._directory))

    def seen(self, *events: str) -> Sequence[Entry]:
        return [entry for entry in entries_of(self._directory)[self._before :] if entry["event"] in events]


@pytest.fixture
def watch(server: Server) -> Watch:
    return Watch(server)


async def tenant_of(server: Server, kms: FaithfulKms) -> tuple[str, Key]:
    """A new tenant with a key of its own."""
    tenant = f"tenant-{next(_numbers)}"
    key = kms.create_key(tenant)
    await register(server, tenant, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
    return tenant, key


async def put_small(server: Server, tenant: str, key: str, data: bytes) -> None:
    head = PutHeader(tenant_id=tenant, key=key, upload_id=new_upload_id())
    await server.storage.PutSmall(PutSmallRequest(header=head, data=data), timeout=TIMEOUT)


async def test_one_record_for_each_call(server: Server, kms: FaithfulKms, watch: Watch) -> None:
    """Done, refused and unreadable alike: who, what, to which object, how it ended, and how much flowed."""
    tenant, _ = await tenant_of(server, kms)
    await put(server, tenant, "key", content(3000))
    await put_small(server, tenant, "small", b"12345")
    await get(server, tenant, "key", offset=100, length=200)
    archive = await export(server, request(tenant))
    await server.storage.Stat(StatRequest(tenant_id=tenant, key="key"))
    await server.storage.List(ListRequest(tenant_id=tenant, prefix="k"))
    await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant))
    await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="key"))
    await server.storage.GetServerInfo(GetServerInfoRequest())
    failures = [
        await failure(get(server, tenant, "key")),
        await failure(send_put(server, header(tenant, "new"), chunk(0, b"abc"))),
        await failure(get(server, "no tenant at all", "key")),
        await failure(send(server, "Put", b"\xff")),
        await failure(send(server, "Stat", b"\xff")),
    ]
    records = watch.seen("rpc")
    hashes = load_object_hashes(AuditFiles(server.data_dir / "audit"))
    key, small, new = (hashes.hash(tenant, name) for name in ("key", "small", "new"))
    columns = ("operation", "tenant", "object", "code", "reason", "bytes_in", "bytes_out")
    assert [tuple(record[column] for column in columns) for record in records] == [
        ("RegisterTenant", tenant, "", "OK", "", 0, 0),
        ("Put", tenant, key, "OK", "", 3000, 0),
        ("PutSmall", tenant, small, "OK", "", 5, 0),
        ("Get", tenant, key, "OK", "", 0, 200),
        ("Export", tenant, "", "OK", "", 0, len(archive.data)),
        ("Stat", tenant, key, "OK", "", 0, 0),
        ("List", tenant, "", "OK", "", 0, 0),
        ("GetTenant", tenant, "", "OK", "", 0, 0),
        ("Delete", tenant, key, "OK", "", 0, 0),
        ("GetServerInfo", "", "", "OK", "", 0, 0),
        ("Get", tenant, key, "NOT_FOUND", "OBJECT_NOT_FOUND", 0, 0),
        ("Put", tenant, new, "INVALID_ARGUMENT", "REQUEST_INVALID", 3, 0),
        ("Get", "", "", "INVALID_ARGUMENT", "REQUEST_INVALID", 0, 0),
        ("Put", "", "", "INVALID_ARGUMENT", "REQUEST_INVALID", 0, 0),
        ("Stat", "", "", "INVALID_ARGUMENT", "REQUEST_INVALID", 0, 0),
    ]
    assert {record["caller"] for record in records} == {"anonymous"}
    assert [record["operation"] for record in records if record["last_plaintext"]] == ["Get", "Export"]
    assert all(record["peer"].startswith("ipv4:127.0.0.1:") for record in records)
    told = [failed.metadata["requestId"] for failed in failures if failed.metadata]
    assert [record["request_id"] for record in records[-5:]] == told


async def test_calls_that_are_not_answered(server: Server, kms: FaithfulKms, watch: Watch) -> None:
    """Clients that give up leave one record each, too."""
    tenant, _ = await tenant_of(server, kms)
    await put(server, tenant, "large", content(9 * MIB))
    putting = await begin(server, tenant, "given up")
    await putting.send(content(PART + MIB))
    await putting.told_of(PART)
    reading = server.storage.Get(GetRequest(tenant_id=tenant, key="large"), timeout=TIMEOUT)
    await reading.read()
    putting.call.cancel()
    reading.cancel()
    await until(lambda: len(watch.seen("rpc")) >= 4)
    cancelled = {record["operation"]: record for record in watch.seen("rpc") if record["code"] == "CANCELLED"}
    assert set(cancelled) == {"Get", "Put"}
    assert PART < cancelled["Put"]["bytes_in"] <= PART + MIB
    assert len(watch.seen("rpc")) == 4


async def test_changes_of_a_key(kms: FaithfulKms, tmp_path: Path) -> None:
    """When a key was seen disabled and enabled again: by which request to KMS, and for which call that was made."""
    key = kms.create_key("switched")
    settings = {"lease_refresh": 0.05, "lease_bound": 30, "key_probe_interval": 3600}
    async with serving_on_kms(kms, tmp_path, **settings) as server:
        await register(server, "switched", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        await put(server, "switched", "key", b"content")
        key.disable()
        told = await refused(lambda: get(server, "switched", "key"))
        key.enable()
        await get(server, "switched", "key")
    off, on = entries_of(tmp_path / "audit", "key_state")
    assert (off["previous"], off["key_state"], off["reason"]) == ("ENABLED", "DISABLED", "KMS_KEY_DISABLED")
    assert (on["previous"], on["key_state"], on["reason"]) == ("DISABLED", "ENABLED", "")
    assert told.metadata
    assert (off["tenant"], off["operation"], off["request_id"]) == ("switched", "Get", told.metadata["requestId"])
    attempts = {entry["kms_request_id"]: entry["reason"] for entry in entries_of(tmp_path / "audit", "kms")}
    assert (attempts[off["kms_request_id"]], attempts[on["kms_request_id"]]) == ("KMS_KEY_DISABLED", "")


async def test_calls_that_the_server_ends(tmp_path: Path) -> None:
    """A call that a stopping server does not wait for is recorded before the log is closed."""
    async with serving(tmp_path, drain_timeout=0) as server:
        tenant = await register(server, "acme")
        putting = await begin(server, tenant, "key")
        await putting.send(content(PART + MIB))
        await putting.told_of(PART)
    assert [(entry["operation"], entry["code"]) for entry in entries_of(tmp_path / "audit", "rpc")] == [
        ("RegisterTenant", "OK"),
        ("Put", "CANCELLED"),
    ]
    assert [entry["event"] for entry in entries_of(tmp_path / "audit")][-2:] == ["stop", "checkpoint"]


async def test_a_refused_certificate(tmp_path: Path) -> None:
    """Who may not call at all is recorded, as nobody, with the address that the call came from."""
    files = write_files(tmp_path)
    tls = {name.removeprefix("KEYSTOW_").lower(): value for name, value in files.mutual.items()}
    nameless = files.authority.client("")
    async with serving(tmp_path / "data", audit_on_failure="refuse", **tls) as server:
        told = await asyncio.to_thread(answer, server.address, files.authority.pem, nameless)
    assert told.startswith("UNAUTHENTICATED")
    [record] = entries_of(tmp_path / "data" / "audit", "rpc")
    assert (record["caller"], record["reason"]) == ("anonymous", "CREDENTIALS_INVALID")
    assert record["peer"].startswith("ipv4:127.0.0.1:")


# --- Keys and KMS -----------------------------------------------------------------------------------------------------


async def test_every_request_to_kms(server: Server, kms: FaithfulKms, watch: Watch) -> None:
    """Each that KMS got is there under its id, with key, context, outcome and the call that it was made for."""
    before = len(kms.requests)
    tenant, key = await tenant_of(server, kms)
    kms.faults.fail_next(Fault("ThrottlingException"))
    await put(server, tenant, "key", b"content")  # at the second attempt
    await get(server, tenant, "key")
    async with client_of(kms, CUSTOMER) as customer:
        await customer.disable_key(KeyId=key.arn)
    other, their_key = await tenant_of(server, kms)
    their_key.disable()
    assert (await failure(put(server, other, "key", b"content"))).reason == "KMS_KEY_DISABLED"
    attempts = watch.seen("kms")
    got = [each for each in kms.requests[before:] if each.principal is not CUSTOMER]
    assert [(each["kms_operation"], each["kms_key"], each["kms_request_id"]) for each in attempts] == [
        (each.operation, each.key_id, each.request_id) for each in got
    ]
    assert [each["context"] for each in attempts] == [dict(each.context) for each in got]
    # Another tenant's context, and none, are tried at a registration and must be refused.
    assert {each["reason"] for each in attempts} == {"", "KMS_ACCESS_DENIED", "KMS_KEY_DISABLED", "KMS_THROTTLED"}
    calls = {record["request_id"]: record["operation"] for record in watch.seen("rpc")}
    assert all(calls[each["request_id"]] == each["operation"] for each in attempts)
    assert [each["operation"] for each in attempts if each["tenant"] == tenant][-3:] == ["Put", "Put", "Get"]


@pytest.mark.parametrize("wrapped", [b"", bytes(7000)], ids=["empty", "too long"])
async def test_what_kms_was_not_asked(kms: FaithfulKms, tmp_path: Path, wrapped: bytes) -> None:
    """A data key that is none by its length is refused without a request to KMS, and so without a record of one."""
    key = kms.create_key("nobody")
    arn, context = KeyArn.parse(key.arn), {"keystow:tenant": "nobody"}
    before = len(kms.requests)
    async with (
        open_log(tmp_path) as log,
        open_kms(
            "us-east-1",
            endpoint=kms.endpoints["us-east-1"],
            session=session_of(),
            around=lambda keys: AuditedKeyService(keys, log),
        ) as service,
    ):
        with pytest.raises(WrappedKeyInvalidError):
            await service.unwrap(arn, wrapped, context)
    assert kms.requests[before:] == []
    assert entries_of(tmp_path, "kms") == []


@pytest.mark.parametrize("wrapped", [b"", bytes(1025)], ids=["empty", "too long"])
async def test_tokens_with_a_data_key_that_is_none(
    server: Server, kms: FaithfulKms, watch: Watch, wrapped: bytes
) -> None:
    """A caller cannot make requests to KMS, nor records of any, with a token that keystow never gave out."""
    tenant, key = await tenant_of(server, kms)
    before = await interrupted(server, tenant, content(PART), 0)
    token = before.progress[-1].resume_token
    header_end = 6 + int.from_bytes(token[4:6])
    stored = parse(token[6:header_end].ljust(HEADER_LENGTH, b"\0"))
    wrap = WrappedDataKey(kms_key_arn=key.arn, ciphertext=wrapped).SerializeToString()
    made = encode(stored.core_bytes, wrap, stored.sealed_metadata).rstrip(b"\0")
    forged = b"KSR1" + len(made).to_bytes(2) + made + token[header_end:]
    asked, recorded = len(kms.requests), len(watch.seen("kms"))
    begun = header(tenant, "key", upload_id=before.upload_id, resume_token=forged)
    abort = AbortPutRequest(tenant_id=tenant, key="key", upload_id=before.upload_id, resume_token=forged)
    for call in (send_put(server, begun), server.storage.AbortPut(abort, timeout=TIMEOUT)):
        assert (await failure(call)).reason == "RESUME_TOKEN_INVALID"
    assert (len(kms.requests), len(watch.seen("kms"))) == (asked, recorded)


async def test_every_use_of_a_key_is_tied_to_kms(server: Server, kms: FaithfulKms, watch: Watch) -> None:
    """Uses from memory name the requests to KMS that the data keys came from, and those that proved the leases."""
    tenant, key = await tenant_of(server, kms)
    for name in ("a", "b", "c"):
        await put(server, tenant, name, b"content")
    await get(server, tenant, "a")
    await get(server, tenant, "b")
    await export(server, request(tenant))
    [generated] = [each for each in watch.seen("kms") if each["operation"] == "Put"]
    [decrypted] = [each for each in watch.seen("kms") if each["operation"] == "Get"]
    sealed = {"use": "seal", "kms_key": key.arn, "count": 1, "kms_request_ids": [generated["kms_request_id"]]}
    opened = {"use": "open", "kms_key": key.arn, "count": 1, "kms_request_ids": [decrypted["kms_request_id"]]}
    records = watch.seen("rpc")[1:]
    assert [record["key_uses"] for record in records] == [
        [{**sealed, "cached": 0}],
        [{**sealed, "cached": 1}],
        [{**sealed, "cached": 1}],
        [{**opened, "cached": 0}],
        [{**opened, "cached": 1}],
        [{**opened, "count": 3, "cached": 3}],
    ]


async def test_more_uses_than_one_record_takes(server: Server, kms: FaithfulKms, tmp_path: Path) -> None:
    """An export that rests on many requests to KMS tells them in several records, of bounded size, that add up."""
    tenant = "acme"
    key = kms.create_key(tenant)
    settings = {"audit_on_failure": "refuse", "key_probe_interval": 3600, "data_key_max_objects": 1}
    async with serving_on_kms(kms, tmp_path, **settings) as own:
        await register(own, tenant, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        for number in range(130):
            await put_small(own, tenant, f"{number}", b"x")
        before = len(kms.requests)
        await export(own, request(tenant))
        decrypted = [each.request_id for each in kms.requests[before:] if each.operation == "Decrypt"]
    told = [entry for entry in entries_of(tmp_path / "audit", "rpc", "key_uses") if entry["operation"] == "Export"]
    assert [entry["event"] for entry in told] == ["key_uses", "rpc"]
    assert len({entry["request_id"] for entry in told}) == 1
    uses = [use for entry in told for use in entry["key_uses"]]
    assert all(len(use["kms_request_ids"]) <= 100 for use in uses)
    assert sum(use["count"] for use in uses) == len(decrypted) == 130
    assert {request_id for use in uses for request_id in use["kms_request_ids"]} == set(decrypted)


# --- Secrets ----------------------------------------------------------------------------------------------------------

CONTENT, KEY, CONTENT_TYPE, NAME, VALUE, DISPLAY_NAME, TENANT = (f"canary-{number}-5b2e" for number in range(7))


async def test_no_secret_is_in_the_log(server: Server, kms: FaithfulKms) -> None:
    """Neither plaintext nor data keys, no name of an object or of metadata, and nothing that somebody made up."""
    tenant = f"tenant-{next(_numbers)}"
    await register(server, tenant, display_name=DISPLAY_NAME)
    await put(server, tenant, KEY, CONTENT.encode() * 100, content_type=CONTENT_TYPE, metadata={NAME: VALUE})
    await get(server, tenant, KEY)
    await server.storage.List(ListRequest(tenant_id=tenant, prefix=KEY))
    await export(server, request(tenant, KEY, on_error=ERROR_POLICY_CONTINUE))
    await failure(put(server, tenant, KEY, CONTENT.encode()))
    await failure(get(server, tenant, KEY * 100))
    await failure(get(server, f"{TENANT}!", KEY))
    await failure(send(server, "Stat", f"\x0a\x7f{CONTENT}".encode()))
    log = b"".join(lines_of(*files_of(server.data_dir / "audit")))
    assert b"REQUEST_INVALID" in log
    for canary in (CONTENT, KEY, CONTENT_TYPE, NAME, VALUE, DISPLAY_NAME, f"{TENANT}!"):
        assert canary.encode() not in log
        assert base64.b64encode(canary.encode()).rstrip(b"=") not in log


async def test_the_whole_log_verifies(server: Server) -> None:
    """What all these tests have left behind: a chain that is open, because its server runs, and otherwise whole."""
    directory = server.data_dir / "audit"
    found = verify(files_of(directory), [load_signing_key(AuditFiles(directory)).public])
    assert [finding.kind.value for finding in found] == ["open"]
