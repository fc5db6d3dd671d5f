"""Export through a real channel: what is in the archive, in which order it is told, and what the objects' ends do."""

import grpc
import pytest

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import (
    ARCHIVE_FORMAT_TAR,
    ARCHIVE_FORMAT_ZIP,
    ERROR_POLICY_CONTINUE,
    ERROR_POLICY_STOP,
    WRITE_MODE_OVERWRITE,
    DeleteRequest,
    StatRequest,
)
from objects.damage import flip
from rpc.exports import Export, drained, export, manifests_of, objects_of, request, stream, untar, unzip
from rpc.wire import MIB, content, failure, put
from servers.in_process import NARROW_WINDOW, Server, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORMATS = {"tar": (ARCHIVE_FORMAT_TAR, untar), "zip": (ARCHIVE_FORMAT_ZIP, unzip)}
POLICIES = {"STOP": ERROR_POLICY_STOP, "CONTINUE": ERROR_POLICY_CONTINUE}

# Every length that the framing or the reading treats in its own way: empty, a block of tar, a segment, what comes with
# the first read, and what does not.
SIZES = (0, 1, 511, 512, 513, MIB - 512, MIB - 1, MIB, MIB + 1, 6 * MIB + 7)


async def put_sizes(server: Server, tenant: str) -> dict[str, bytes]:
    """An object of each size."""
    stored = {f"folder/{number}.bin": content(size, str(size)) for number, size in enumerate(SIZES)}
    for key, data in stored.items():
        await put(server, tenant, key, data, content_type="application/x", metadata={"name": key})
    return stored


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", FORMATS)
async def test_the_archive_holds_every_object(server: Server, tenant: str, kind: str, policy: str) -> None:
    """Members are the objects, byte for byte; entries and manifest tell of each what Stat tells; the sums are right."""
    stored = await put_sizes(server, tenant)
    archive_format, read = FORMATS[kind]
    exported = await export(server, request(tenant, format=archive_format, on_error=POLICIES[policy]))
    members = read(bytes(exported.data))
    assert objects_of(members) == stored
    lines = [line for manifest in manifests_of(members) for line in manifest]
    assert len(exported.entries) == len(lines) == len(stored)
    for entry, line in zip(exported.entries, lines, strict=True):
        key = entry.object.key
        assert entry.object == (await server.storage.Stat(StatRequest(tenant_id=tenant, key=key))).object
        assert (entry.status.code, entry.member_name) == (0, key)
        assert entry.HasField("status")
        assert (line["key"], line["member"], line["size"]) == (key, key, len(stored[key]))
        assert (line["version_id"], line["crc32c"]) == (entry.object.version_id, f"{entry.object.crc32c:08x}")
        assert (line["content_type"], line["metadata"]) == ("application/x", {"name": key})
        assert line["create_time"].startswith(entry.object.create_time.ToJsonString()[:19])
    assert exported.summary
    assert (exported.summary.object_count, exported.summary.failed_count) == (len(stored), 0)
    assert exported.summary.total_size == sum(map(len, stored.values()))


@pytest.mark.parametrize("kind", FORMATS)
async def test_an_empty_export(server: Server, tenant: str, kind: str) -> None:
    """A tenant without objects has an archive without objects, which is complete."""
    archive_format, read = FORMATS[kind]
    exported = await export(server, request(tenant, format=archive_format))
    assert manifests_of(read(bytes(exported.data))) == [[]]
    assert exported.summary
    assert (exported.summary.object_count, exported.summary.complete) == (0, True)


async def test_an_entry_comes_after_its_bytes(server: Server, tenant: str) -> None:
    """When an object is reported, its member is in the archive to the last block."""
    stored = await put_sizes(server, tenant)
    taken = Export()
    async for response in stream(server, request(tenant)):
        taken.take(response)
        if response.HasField("entry"):
            key = response.entry.object.key
            end = bytes(1024)
            assert untar(bytes(taken.data) + end)[key] == stored[key]


async def test_a_prefix_selects(server: Server, tenant: str) -> None:
    """Those keys that start with it, as text: not only whole folders."""
    for key in ("a", "ab", "a/1", "b", "ab/2", "é/1"):
        await put(server, tenant, key, key.encode())
    for prefix, keys in {"a": {"a", "ab", "a/1", "ab/2"}, "a/": {"a/1"}, "é": {"é/1"}, "c": set()}.items():
        exported = await export(server, request(tenant, prefix=prefix))
        assert {entry.object.key for entry in exported.entries} == keys


async def test_keys_select_in_their_order(server: Server, tenant: str) -> None:
    """Exactly those named, as they were named."""
    for key in ("a", "b", "c"):
        await put(server, tenant, key, key.encode())
    exported = await export(server, request(tenant, "c", "a"))
    assert [entry.object.key for entry in exported.entries] == ["c", "a"]
    assert list(objects_of(untar(bytes(exported.data)))) == ["c", "a"]


async def test_a_key_that_is_not_there(server: Server, tenant: str) -> None:
    """With STOP the export ends with its status; with CONTINUE it is reported, and the rest is there."""
    await put(server, tenant, "a", b"a")
    await put(server, tenant, "c", b"c")
    taken = Export()
    told = await failure(export(server, request(tenant, "a", "b", "c"), into=taken))
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND", "none")
    assert told.metadata
    assert (told.metadata["tenantId"], told.metadata["objectKey"]) == (tenant, "b")
    assert [entry.object.key for entry in taken.entries] == ["a"]
    exported = await export(server, request(tenant, "a", "b", "c", on_error=ERROR_POLICY_CONTINUE))
    assert objects_of(untar(bytes(exported.data))) == {"a": b"a", "c": b"c"}
    assert [entry.status.code for entry in exported.entries] == [0, grpc.StatusCode.NOT_FOUND.value[0], 0]
    assert exported.summary
    assert (exported.summary.object_count, exported.summary.failed_count, exported.summary.complete) == (2, 1, False)


# The object's size, and where its stored bytes are damaged.
DAMAGES = {
    "small": (1000, -200),
    "small, in its last segment": (MIB, -130),
    "large, at its end": (6 * MIB, -130),
    "large, in its first segment": (6 * MIB, 5000),
    "in its header": (6 * MIB, 4000),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", DAMAGES)
async def test_damage_with_continue(server: Server, tenant: str, kind: str, case: str) -> None:
    """No byte of the damaged object is in the archive, its entry and the manifest say why, and all others are there."""
    size, offset = DAMAGES[case]
    archive_format, read = FORMATS[kind]
    for key in ("a", "b", "c"):
        await put(server, tenant, key, content(size, key))
    [file] = [file for file in server.stored(tenant) if file.name == "_b!"]
    flip(offset)(file)
    exported = await export(server, request(tenant, format=archive_format, on_error=ERROR_POLICY_CONTINUE))
    members = read(bytes(exported.data))
    assert objects_of(members) == {key: content(size, key) for key in ("a", "c")}
    failed = exported.entries[1]
    assert (failed.object.tenant_id, failed.object.key, failed.member_name) == (tenant, "b", "")
    assert failed.status.code == grpc.StatusCode.DATA_LOSS.value[0]
    lines = manifests_of(members)[0]
    assert (lines[1]["key"], lines[1]["message"]) == ("b", failed.status.message)
    assert lines[1]["error"] in {"OBJECT_TAMPERED", "OBJECT_HEADER_INVALID"}
    assert exported.summary
    assert not exported.summary.complete
    assert exported.summary.total_size == 2 * size


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", DAMAGES)
async def test_damage_with_stop(server: Server, tenant: str, kind: str, case: str) -> None:
    """The stream ends with the object's own status and its key; of a small one, or any in a zip, no byte is sent."""
    size, offset = DAMAGES[case]
    archive_format, _ = FORMATS[kind]
    for key in ("a", "b", "c"):
        await put(server, tenant, key, content(size, key))
    [file] = [file for file in server.stored(tenant) if file.name == "_b!"]
    flip(offset)(file)
    taken = Export()
    told = await failure(export(server, request(tenant, format=archive_format), into=taken))
    assert (told.code, told.recovery) == (grpc.StatusCode.DATA_LOSS, "none")
    assert told.metadata
    assert told.metadata["objectKey"] == "b"
    assert [entry.object.key for entry in taken.entries] == ["a"]
    if case != "large, at its end" or kind == "zip":
        assert len(taken.data) < size + 2000


async def test_deleted_after_it_was_listed(server: Server, tenant: str) -> None:
    """With STOP the archive is of what stands when its turn comes; with CONTINUE the object is reported as missing."""
    numbers = range(40)  # more than are opened ahead
    for policy in (ERROR_POLICY_STOP, ERROR_POLICY_CONTINUE):
        for number in numbers:
            await put(server, tenant, f"{number:02}", content(MIB // 4), write_mode=WRITE_MODE_OVERWRITE)
        async with connected(server.address, NARROW_WINDOW) as channel:
            storage = storage_pb2_grpc.StorageServiceStub(channel)
            responses = aiter(storage.Export(request(tenant, on_error=policy)))
            taken = Export()
            taken.take(await anext(responses))
            await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="39"))
            async for response in responses:
                taken.take(response)
        assert taken.summary
        assert taken.summary.object_count == 39
        assert taken.summary.failed_count == (policy == ERROR_POLICY_CONTINUE)
        assert sorted(objects_of(untar(bytes(taken.data)))) == [f"{number:02}" for number in numbers[:-1]]


@pytest.mark.parametrize("deed", ["overwrite", "delete"])
async def test_replaced_while_it_is_sent(server: Server, tenant: str, deed: str) -> None:
    """In the middle of a member nothing can be taken back: the stream ends with OBJECT_CHANGED or OBJECT_NOT_FOUND."""
    data = content(48 * MIB)  # more than is read ahead
    await put(server, tenant, "key", data, size=len(data))
    async with connected(server.address, NARROW_WINDOW) as channel:
        storage = storage_pb2_grpc.StorageServiceStub(channel)
        responses = aiter(storage.Export(request(tenant)))
        taken = Export()
        taken.take(await anext(responses))
        if deed == "overwrite":
            await put(server, tenant, "key", b"new", write_mode=WRITE_MODE_OVERWRITE)
        else:
            await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="key"))
        told = await failure(drained(responses, taken))
    assert told.reason == {"overwrite": "OBJECT_CHANGED", "delete": "OBJECT_NOT_FOUND"}[deed]
