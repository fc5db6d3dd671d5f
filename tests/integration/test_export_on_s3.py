"""Export on S3 and KMS, through a real channel, with boto3 as the independent view of the bucket."""

import uuid

import grpc
import pytest

from keystow.v1.storage_pb2 import (
    ARCHIVE_FORMAT_TAR,
    ARCHIVE_FORMAT_ZIP,
    ERROR_POLICY_CONTINUE,
    ERROR_POLICY_STOP,
    ErrorPolicy,
)
from rpc.exports import Export, export, manifests_of, objects_of, request, untar, unzip
from rpc.wire import MIB, content, failure, put
from servers.in_process import Server, register
from servers.on_aws import Bucket

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTENTS = {
    "é/../x": content(5, "x"),
    "a": content(1000, "a"),
    "a/b": b"",
    "a/c": content(17 * MIB, "a/c"),  # more than two parts
    "b": content(MIB, "b"),
}
MEMBERS = {"a": "a", "a/b": "a%/b", "a/c": "a%/c", "b": "b", "é/../x": "é/.%2E/x"}


async def filled(server: Server) -> str:
    """A new tenant with CONTENTS."""
    tenant = await register(server, f"t-{uuid.uuid4()}")
    for key, data in CONTENTS.items():
        await put(server, tenant, key, data)
    return tenant


@pytest.mark.parametrize("policy", [ERROR_POLICY_STOP, ERROR_POLICY_CONTINUE])
@pytest.mark.parametrize("kind", ["tar", "zip"])
async def test_every_object_in_one_archive(
    on_aws: tuple[Server, Bucket], kind: str, policy: ErrorPolicy.ValueType
) -> None:
    """As on the local store; what else lies in the bucket is not exported."""
    server, bucket = on_aws
    tenant = await filled(server)
    bucket.write(f"objects/{tenant}/foreign", b"foreign")
    archive_format, read = {"tar": (ARCHIVE_FORMAT_TAR, untar), "zip": (ARCHIVE_FORMAT_ZIP, unzip)}[kind]
    exported = await export(server, request(tenant, format=archive_format, on_error=policy))
    members = read(bytes(exported.data))
    assert objects_of(members) == {MEMBERS[key]: data for key, data in CONTENTS.items()}
    assert [line["key"] for manifest in manifests_of(members) for line in manifest] == list(CONTENTS)


async def test_more_than_a_page(on_aws: tuple[Server, Bucket]) -> None:
    """Beyond S3's thousand names a list the export goes on; damaged objects are names like any others."""
    server, bucket = on_aws
    tenant = await register(server, f"t-{uuid.uuid4()}")
    await put(server, tenant, "0", b"first")
    await put(server, tenant, "2", b"last")
    for number in range(1005):
        bucket.write(f"objects/{tenant}/_1-{number:04}!", b"")
    exported = await export(server, request(tenant, on_error=ERROR_POLICY_CONTINUE))
    assert objects_of(untar(bytes(exported.data))) == {"0": b"first", "2": b"last"}
    assert exported.summary
    assert (exported.summary.object_count, exported.summary.failed_count) == (2, 1005)


async def test_damage_and_loss_in_the_bucket(on_aws: tuple[Server, Bucket]) -> None:
    """STOP ends with the first, by its key; CONTINUE tells of each, and exports the rest."""
    server, bucket = on_aws
    tenant = await filled(server)
    name = f"objects/{tenant}/_a/_c!"
    stored = bytearray(bucket.read(name))
    stored[9 * MIB] ^= 1
    bucket.write(name, bytes(stored))
    bucket.archive(f"objects/{tenant}/_b!")
    taken = Export()
    told = await failure(export(server, request(tenant), into=taken))
    assert (told.code, told.reason) == (grpc.StatusCode.DATA_LOSS, "OBJECT_TAMPERED")
    assert told.metadata
    assert told.metadata["objectKey"] == "a/c"
    assert [entry.object.key for entry in taken.entries] == ["é/../x", "a", "a/b"]
    exported = await export(server, request(tenant, *CONTENTS, "gone", on_error=ERROR_POLICY_CONTINUE))
    members = untar(bytes(exported.data))
    assert objects_of(members) == {MEMBERS[key]: CONTENTS[key] for key in ("a", "a/b", "é/../x")}
    errors = {line["key"]: line.get("error") for manifest in manifests_of(members) for line in manifest}
    assert errors == {
        "a": None,
        "a/b": None,
        "a/c": "OBJECT_TAMPERED",
        "b": "OBJECT_ARCHIVED",
        "é/../x": None,
        "gone": "OBJECT_NOT_FOUND",
    }


async def test_a_continuation(on_aws: tuple[Server, Bucket]) -> None:
    """From each checkpoint: the joined archive is the whole one."""
    server, _ = on_aws
    tenant = await register(server, f"t-{uuid.uuid4()}")
    for number in range(6):
        await put(server, tenant, f"{number}", content(23 * MIB, f"{number}"))
    exported = await export(server, request(tenant))
    assert len(exported.checkpoints) == 2
    for checkpoint in exported.checkpoints:
        message = request(tenant, checkpoint_token=checkpoint.checkpoint_token)
        rest = await export(server, message, start=checkpoint.archive_size)
        assert exported.data[: checkpoint.archive_size] + rest.data == exported.data
