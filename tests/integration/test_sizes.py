"""Objects of every size around a border come back byte for byte, from the local disk and from S3."""

import pytest
import pytest_asyncio

from keystow.v1.storage_pb2 import DeleteRequest, GetRequest, ListRequest
from keystow_service.envelope.layout import V1
from rpc.pattern import Pattern
from rpc.wire import MIB, TIMEOUT, body, header, send_put
from servers.in_process import Server, register
from servers.on_aws import Bucket

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "sizes"
# Around a segment, a part, and many parts.
SIZES = [0, 1, MIB - 1, MIB, MIB + 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 100 * MIB]
UNDECLARED = SIZES[:-1]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def local(server: Server) -> Server:
    """The embedded default."""
    await register(server, TENANT)
    return server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aws(on_aws: tuple[Server, Bucket]) -> tuple[Server, Bucket]:
    """S3 and KMS."""
    await register(on_aws[0], TENANT)
    return on_aws


@pytest.mark.parametrize(
    ("size", "declared"), [*((size, True) for size in SIZES), *((size, False) for size in UNDECLARED)]
)
async def test_on_the_local_store(local: Server, size: int, *, declared: bool) -> None:
    """Round trip, with the size declared and not; one file of the length that the format gives."""
    await round_trip(local, size, declared=declared)
    [file] = local.stored(TENANT)
    assert file.stat().st_size == V1.stored_size(size)
    await local.storage.Delete(DeleteRequest(tenant_id=TENANT, key="key"))
    assert local.unfinished() == []


@pytest.mark.parametrize("size", SIZES)
async def test_on_s3(aws: tuple[Server, Bucket], size: int) -> None:
    """Round trip; as boto3 sees it, one object of the length that the format gives, and no upload left open."""
    server, bucket = aws
    await round_trip(server, size, declared=size % 2 == 0)
    assert bucket.sizes() == {f"objects/{TENANT}/_key!": V1.stored_size(size)}
    assert bucket.unfinished() == []
    await server.storage.Delete(DeleteRequest(tenant_id=TENANT, key="key"))
    assert bucket.sizes() == {}


async def round_trip(server: Server, size: int, *, declared: bool) -> None:
    """Put, Get, compare; List tells the size."""
    pattern = Pattern(size)
    begin = header(TENANT, "key", **({"size": size} if declared else {}))
    answer = await send_put(server, begin, *body(pattern.pieces()))
    assert (answer.size, answer.stored_size) == (size, V1.stored_size(size))
    stream = server.storage.Get(GetRequest(tenant_id=TENANT, key="key"), timeout=TIMEOUT)
    assert await pattern.check(aiter(stream)) == answer
    [listed] = (await server.storage.List(ListRequest(tenant_id=TENANT))).objects
    assert (listed.size, listed.version_id) == (size, answer.version_id)
