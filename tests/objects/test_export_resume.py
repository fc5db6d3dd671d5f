"""Checkpoints: an interrupted export goes on where it was, on any server, and the joined archive is the whole one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio

from keystow.v1.storage_pb2 import ERROR_POLICY_CONTINUE, WRITE_MODE_OVERWRITE, DeleteRequest, ExportRequest
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.model import ANONYMOUS, TenantId
from keystow_service.objects.export.command import ExportCommand, Prefix
from objects.damage import flip
from rpc.exports import Export, export, manifests_of, objects_of, request, stream, untar
from rpc.wire import MIB, content, failure, put
from servers.in_process import Server, register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHECKPOINT_OBJECTS = 3
SETTINGS = {"export_checkpoint_objects": CHECKPOINT_OBJECTS, "export_checkpoint_bytes": 2 * MIB}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One that offers a checkpoint after every few objects."""
    async with serving(tmp_path_factory.mktemp("data"), **SETTINGS) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Whole:
    """A tenant with objects, and what an uninterrupted export of them gives."""

    tenant: str
    exported: Export

    def cut_at(self, number: int) -> tuple[bytes, int, bytes]:
        """The archive up to this checkpoint, its size, the token."""
        checkpoint = self.exported.checkpoints[number]
        return (
            bytes(self.exported.data[: checkpoint.archive_size]),
            checkpoint.archive_size,
            checkpoint.checkpoint_token,
        )


# In List's order, with a folder that is an object too, across checkpoints.
CONTENTS = {
    "a": content(10, "a"),
    "a-1": content(512, "a-1"),
    "a-2": b"",
    "a-3": content(3 * MIB, "a-3"),
    "a/b": content(20, "a/b"),
    "a/b/c": content(MIB, "a/b/c"),
    "a/b/d": content(MIB + 1, "a/b/d"),
    "b": content(1, "b"),
    "c/d": content(2, "c/d"),
    "c/e": content(3, "c/e"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole(server: Server) -> Whole:
    """Of CONTENTS."""
    tenant = await register(server, "whole")
    for key, data in CONTENTS.items():
        await put(server, tenant, key, data)
    return Whole(tenant, await export(server, request(tenant)))


async def resume(server: Server, whole: Whole, number: int, **fields: object) -> Export:
    """Continue after this checkpoint."""
    _, size, token = whole.cut_at(number)
    return await export(server, request(whole.tenant, checkpoint_token=token, **fields), start=size)


async def test_each_span_has_its_manifest(whole: Whole) -> None:
    """A checkpoint comes after so many objects or bytes; the member before it lists the objects since the last one."""
    members = untar(bytes(whole.exported.data))
    spans = [[line["key"] for line in manifest] for manifest in manifests_of(members)]
    assert spans == [["a", "a-1", "a-2"], ["a-3"], ["a/b", "a/b/c", "a/b/d"], ["b", "c/d", "c/e"]]
    assert len(whole.exported.checkpoints) == len(spans)
    for number, checkpoint in enumerate(whole.exported.checkpoints, 1):
        before = untar(bytes(whole.exported.data[: checkpoint.archive_size]) + bytes(1024))
        assert list(before)[-1] == f".keystow/MANIFEST-{number:05}.jsonl"
        assert checkpoint.archive_size % 512 == 0


async def test_the_joined_archive_is_the_whole_one(server: Server, whole: Whole) -> None:
    """After every checkpoint: the bytes before it and the continuation are the uninterrupted archive, to the byte."""
    for number in range(len(whole.exported.checkpoints)):
        first, _, _ = whole.cut_at(number)
        rest = await resume(server, whole, number)
        assert first + bytes(rest.data) == bytes(whole.exported.data)
        assert whole.exported.entries[len(CONTENTS) - len(rest.entries) :] == rest.entries
        assert [each.archive_size for each in rest.checkpoints] == [
            each.archive_size for each in whole.exported.checkpoints[number + 1 :]
        ]
        assert rest.summary
        assert whole.exported.summary
        counts = ("object_count", "failed_count", "total_size", "archive_size", "complete")
        for count in counts:
            assert getattr(rest.summary, count) == getattr(whole.exported.summary, count), count


async def test_a_continuation_can_be_continued(server: Server, whole: Whole) -> None:
    """Stream after stream, each taking up the last one's first checkpoint."""
    archive, token = bytearray(), b""
    while True:
        taken = Export(start=len(archive))
        async for response in stream(server, request(whole.tenant, checkpoint_token=token)):
            taken.take(response)
            if taken.checkpoints:
                break
        archive += taken.data
        if taken.summary:
            break
        token = taken.checkpoints[0].checkpoint_token
    assert archive == whole.exported.data


async def test_on_another_server(server: Server, whole: Whole) -> None:
    """One that has just begun knows nothing, and needs nothing but the token."""
    first, size, token = whole.cut_at(1)
    async with serving(server.data_dir, **SETTINGS) as other:
        rest = await export(other, request(whole.tenant, checkpoint_token=token), start=size)
    assert first + bytes(rest.data) == bytes(whole.exported.data)


async def test_selected_keys(server: Server, whole: Whole) -> None:
    """They go on in the caller's order."""
    keys = ("c/e", "a/b", "a", "a/b/c", "b")
    exported = await export(server, request(whole.tenant, *keys))
    assert list(objects_of(untar(bytes(exported.data)))) == ["c/e", "a%/b", "a", "a%/b%/c", "b"]
    [checkpoint] = exported.checkpoints
    message = request(whole.tenant, *keys, checkpoint_token=checkpoint.checkpoint_token)
    rest = await export(server, message, start=checkpoint.archive_size)
    assert exported.data[: checkpoint.archive_size] + rest.data == exported.data


async def test_what_a_token_is_bound_to(server: Server, whole: Whole) -> None:
    """Another tenant, selection or error policy is refused: the rest of one archive is not the rest of another."""
    other = await register(server, "other")
    await put(server, other, "a", b"a")
    _, _, token = whole.cut_at(1)
    forged = bytearray(token)
    forged[-1] ^= 1
    requests: dict[str, ExportRequest] = {
        "tenant": request(other, checkpoint_token=token),
        "prefix": request(whole.tenant, prefix="a", checkpoint_token=token),
        "keys": request(whole.tenant, "a", checkpoint_token=token),
        "policy": request(whole.tenant, on_error=ERROR_POLICY_CONTINUE, checkpoint_token=token),
        "forged": request(whole.tenant, checkpoint_token=bytes(forged)),
    }
    for case, message in requests.items():
        told = await failure(export(server, message))
        assert (told.code, told.reason, told.recovery) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "CHECKPOINT_TOKEN_INVALID",
            "restart",
        ), case


async def test_a_tenant_cannot_be_swapped_inside_a_token(server: Server, whole: Whole) -> None:
    """KMS unwraps a data key for its own tenant only, whatever the clear part of a token says."""
    other = TenantId(await register(server, "swapped"))
    _, _, token = whole.cut_at(1)
    scope = ExportCommand(ANONYMOUS, other, Prefix("")).scope()  # which anybody can compute
    told = await failure(export(server, request(other, checkpoint_token=token[:1] + scope + token[33:])))
    assert told.reason == "CHECKPOINT_TOKEN_INVALID"


async def test_the_tenant_changes_meanwhile(server: Server) -> None:
    """What comes after the checkpoint is as it stands then; what came before it is not visited again."""
    tenant = await register(server, "changing")
    for key in ("b", "c", "d", "f", "g"):
        await put(server, tenant, key, b"old")
    exported = await export(server, request(tenant))
    [checkpoint] = exported.checkpoints
    for key in ("a", "e"):
        await put(server, tenant, key, b"new")
    await put(server, tenant, "f", b"newer", write_mode=WRITE_MODE_OVERWRITE)
    await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="g"))
    message = request(tenant, checkpoint_token=checkpoint.checkpoint_token)
    rest = await export(server, message, start=checkpoint.archive_size)
    joined = untar(bytes(exported.data[: checkpoint.archive_size] + rest.data))
    assert objects_of(joined) == {"b": b"old", "c": b"old", "d": b"old", "e": b"new", "f": b"newer"}


async def test_a_failure_before_the_checkpoint_is_not_forgotten(server: Server) -> None:
    """The summary of the continuation speaks for the whole archive, which is not complete."""
    tenant = await register(server, "failing")
    for key in "abcde":
        await put(server, tenant, key, content(100, key))
    flip(-200)(server.stored(tenant)[0])
    exported = await export(server, request(tenant, on_error=ERROR_POLICY_CONTINUE))
    [checkpoint] = exported.checkpoints
    message = request(tenant, on_error=ERROR_POLICY_CONTINUE, checkpoint_token=checkpoint.checkpoint_token)
    rest = await export(server, message, start=checkpoint.archive_size)
    assert [entry.status.code for entry in rest.entries] == [0, 0]
    assert rest.summary
    assert (rest.summary.object_count, rest.summary.failed_count, rest.summary.complete) == (4, 1, False)


async def test_nothing_could_be_opened(server: Server) -> None:
    """Without any data key there is no token; the manifests come all the same, and the export goes on."""
    tenant = await register(server, "broken")
    for key in "abcdefg":
        await put(server, tenant, key, b"x")
    for file in server.stored(tenant)[:6]:
        flip(0)(file)
    exported = await export(server, request(tenant, on_error=ERROR_POLICY_CONTINUE))
    assert exported.checkpoints == []
    members = untar(bytes(exported.data))
    assert [len(manifest) for manifest in manifests_of(members)] == [3, 3, 1]
    assert objects_of(members) == {"g": b"x"}


async def test_the_key_decides_about_continuing(server: Server) -> None:
    """While it is disabled a token opens nothing, for that reason; once it is enabled, the token is as good as ever."""
    folder = server.data_dir / "keyring"
    admin = KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())
    arn = admin.create("us-east-1", tenants=["customer"]).arn
    fields = {"key_management": KEY_MANAGEMENT_SELF, "kms_key_arn": arn.text}
    tenant = await register(server, "customer", **fields)
    for key in "abcd":
        await put(server, tenant, key, key.encode())
    exported = await export(server, request(tenant))
    [checkpoint] = exported.checkpoints
    message = request(tenant, checkpoint_token=checkpoint.checkpoint_token)
    admin.disable(arn)
    async with serving(server.data_dir, **SETTINGS) as other:
        told = await failure(export(other, message))
        assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KMS_KEY_DISABLED")
        admin.enable(arn)
        rest = await export(other, message, start=checkpoint.archive_size)
    assert exported.data[: checkpoint.archive_size] + rest.data == exported.data
