"""Bad input through a real channel: each case is told by its status, nothing is stored, and the server serves on."""

import pytest
import pytest_asyncio
from google.protobuf.message import Message

from keystow.v1.storage_pb2 import DeleteRequest, ListRequest
from keystow.v1.tenants_pb2 import ListTenantsRequest
from rpc import rows_export, rows_put, rows_read, rows_tenants
from rpc.rows import TENANT, Row, invalid
from rpc.wire import PATHS, failure, get, put, send
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Every RPC, also one that nobody has written rows for, refuses what is not a message.
_UNREADABLE = [
    row
    for method in sorted(PATHS)
    for row in (
        invalid(f"{method}: broken protobuf", method, b"\xff\xff\xff", violations=("",)),
        invalid(f"{method}: no request", method, violations=("message" if method == "Put" else "",)),
    )
]
# tenant_id, key and the like are strings: field 1, which is none in GetServerInfo and ListDataCenters.
_NOT_UTF_8 = [
    invalid(f"{method}: not UTF-8", method, b"\x0a\x02\xff\xfe", violations=("",))
    for method in sorted(PATHS)
    if method not in {"Put", "PutSmall", "GetServerInfo", "ListDataCenters", "ListTenants"}
]
ROWS = [*rows_put.rows(), *rows_read.rows(), *rows_export.rows(), *rows_tenants.rows(), *_UNREADABLE, *_NOT_UTF_8]


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def _acme(server: Server) -> None:
    await register(server, TENANT)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.case) for row in ROWS])
async def test_bad_input_is_named_and_leaves_nothing(server: Server, row: Row) -> None:
    """The row's status, in full; afterwards no object, no temp file, no tenant more, and a Put and a Get work."""
    told = await failure(send(server, row.method, *row.messages))
    assert (told.code, told.reason, told.recovery, told.violations) == (
        row.code,
        row.reason,
        row.recovery,
        row.violations,
    )
    assert server.stored(TENANT) == []
    assert server.unfinished() == []
    await _serves_on(server)


async def _serves_on(server: Server) -> None:
    await put(server, TENANT, "afterwards", b"content")
    assert (await get(server, TENANT, "afterwards")).data == b"content"
    listed = await server.storage.List(ListRequest(tenant_id=TENANT))
    assert [each.key for each in listed.objects] == ["afterwards"]
    await server.storage.Delete(DeleteRequest(tenant_id=TENANT, key="afterwards"))
    tenants = await server.tenants.ListTenants(ListTenantsRequest())
    assert [each.tenant_id for each in tenants.tenants] == [TENANT]


async def test_every_rpc_has_rows() -> None:
    """Whoever adds an RPC to the contract is reminded to say what it refuses."""
    takes_nothing = {"GetServerInfo", "ListDataCenters"}
    assert {row.method for row in ROWS if row not in _UNREADABLE} | takes_nothing == set(PATHS)
    assert {row.method for row in _UNREADABLE} == set(PATHS)


async def test_rows_are_distinct() -> None:
    """No case is listed twice, or hides another by its name."""
    cases = [row.case for row in ROWS]
    assert sorted(set(cases)) == sorted(cases)


async def test_error_texts_never_quote_the_request(server: Server) -> None:
    """Statuses say what a field must be, not what it was: it may hold what nobody should log."""
    for row in ROWS:
        for message in row.messages[:1]:
            if isinstance(message, Message):
                planted = type(message).FromString(message.SerializeToString())
                _plant(planted)
                told = await failure(send(server, row.method, planted))
                assert _CANARY not in f"{told.message}{told.metadata}", row.case


_CANARY = "canary-5e1f"


def _plant(message: Message) -> None:
    """The canary in every text but tenant_id, keys and upload_id, which a status names as they are."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and not message.HasField(field.name):
            continue  # it would mend a request that lacks it, or take another's place
        if field.type == field.TYPE_MESSAGE and not field.is_repeated and message.HasField(field.name):
            _plant(getattr(message, field.name))
        elif field.type == field.TYPE_STRING and field.name not in {"tenant_id", "key", "keys", "upload_id"}:
            setattr(message, field.name, f"{_CANARY}\n" * 100)  # also too long for a prefix
