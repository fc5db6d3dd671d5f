"""Damage on the disk, seen through a real channel: DATA_LOSS by its name, and not one byte that did not verify."""

import os
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from keystow.v1.storage_pb2 import GetRequest, StatRequest
from keystow_service.envelope.layout import FOOTER_LENGTH, FRONT_LENGTH, HEADER_LENGTH, V1
from objects.damage import Damage, flip
from rpc.wire import MIB, TIMEOUT, Failure, content, failure, get, put, received
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZE = 2 * MIB + 1000  # segments 0 and 1 are full, 2 is short and last
DATA = content(SIZE)
STORED_SIZE = V1.stored_size(SIZE)


def cut(length: int) -> Damage:
    """So many bytes off the end."""
    return lambda file: os.truncate(file, file.stat().st_size - length)


def append(data: bytes) -> Damage:
    """Bytes after the end."""

    def damage(file: Path) -> None:
        with file.open("ab") as end:
            end.write(data)

    return damage


def without_segment(index: int) -> Damage:
    """A full segment taken out of the middle."""

    def damage(file: Path) -> None:
        stored = file.read_bytes()
        start = V1.stored_offset(index)
        file.write_bytes(stored[:start] + stored[start + V1.sealed_segment :])

    return damage


def swapped_segments(file: Path) -> None:
    """The two full segments, each in the other's place."""
    stored = file.read_bytes()
    zero, one, two = (V1.stored_offset(index) for index in range(3))
    file.write_bytes(stored[:zero] + stored[one:two] + stored[zero:one] + stored[two:])


# What is done to the file; the reason of a whole Get; how many of its segments are whole and come before the damage.
DAMAGES: dict[str, tuple[Damage, str, int]] = {
    "magic": (flip(0), "OBJECT_HEADER_INVALID", 0),
    "header's padding": (flip(HEADER_LENGTH - 1), "OBJECT_HEADER_INVALID", 0),
    "FLOE parameters": (flip(HEADER_LENGTH), "OBJECT_HEADER_INVALID", 0),
    "FLOE IV": (flip(HEADER_LENGTH + 20), "OBJECT_HEADER_INVALID", 0),
    "FLOE commitment": (flip(FRONT_LENGTH - 1), "OBJECT_HEADER_INVALID", 0),
    "segment 0": (flip(V1.stored_offset(0) + 500), "OBJECT_TAMPERED", 0),
    "tag of segment 0": (flip(V1.stored_offset(1) - 1), "OBJECT_TAMPERED", 0),
    "segment 1": (flip(V1.stored_offset(1) + 500), "OBJECT_TAMPERED", 1),
    "last segment": (flip(V1.stored_offset(2) + 500), "OBJECT_TAMPERED", 2),
    "footer": (flip(-1), "OBJECT_TAMPERED", 0),
    "a byte less": (cut(1), "OBJECT_TAMPERED", 0),
    "no footer": (cut(FOOTER_LENGTH), "OBJECT_TAMPERED", 0),
    "a segment's length less": (cut(V1.sealed_segment), "OBJECT_TAMPERED", 0),
    "a length that no object has": (cut(STORED_SIZE - V1.stored_offset(2) - FOOTER_LENGTH), "OBJECT_TRUNCATED", 0),
    "less than a header": (cut(STORED_SIZE - HEADER_LENGTH + 1), "OBJECT_TRUNCATED", 0),
    "empty file": (cut(STORED_SIZE), "OBJECT_TRUNCATED", 0),
    "a byte more": (append(b"\0"), "OBJECT_TAMPERED", 0),
    "a segment's length more": (append(bytes(V1.sealed_segment)), "OBJECT_TAMPERED", 0),
    "segment 0 gone": (without_segment(0), "OBJECT_TRUNCATED", 0),
    "segment 1 gone": (without_segment(1), "OBJECT_TRUNCATED", 0),
    "segments swapped": (swapped_segments, "OBJECT_TAMPERED", 0),
}


def lost(told: Failure) -> str:
    """The reason of a failure that is DATA_LOSS and says where to get the data from."""
    assert (told.code, told.recovery) == (grpc.StatusCode.DATA_LOSS, "none")
    assert "Restore it" in told.message
    return told.reason


async def failed_get(server: Server, tenant: str, key: str, **fields: Any) -> tuple[Failure, bytes]:
    """How a Get fails, and the plaintext that it gave before."""
    plaintext = bytearray()
    request = GetRequest(tenant_id=tenant, key=key, **fields)
    stream = aiter(server.storage.Get(request, timeout=TIMEOUT))
    told = await failure(received(stream, plaintext))
    return told, bytes(plaintext)


@pytest.mark.parametrize("case", DAMAGES)
async def test_damage_is_named_and_no_bad_byte_leaves(server: Server, tenant: str, case: str) -> None:
    """A whole Get ends with the reason, after the segments before the damage and nothing else."""
    damage, reason, whole_segments = DAMAGES[case]
    await put(server, tenant, "key", DATA)
    [file] = server.stored(tenant)
    damage(file)
    told, plaintext = await failed_get(server, tenant, "key")
    assert lost(told) == reason
    assert plaintext == DATA[: whole_segments * MIB]


async def test_an_empty_range_is_not_believed_either(server: Server, tenant: str) -> None:
    """It shows nothing but the object's description, which is authentic only with the footer."""
    await put(server, tenant, "key", DATA)
    [file] = server.stored(tenant)
    append(bytes(MIB + 32))(file)
    told, plaintext = await failed_get(server, tenant, "key", offset=10, length=0)
    assert lost(told) == "OBJECT_TAMPERED"
    assert plaintext == b""


@pytest.mark.parametrize("case", [*(case for case in DAMAGES if "HEADER" in DAMAGES[case][1]), "footer"])
async def test_stat_believes_nothing_that_does_not_verify(server: Server, tenant: str, case: str) -> None:
    """What Stat tells is in the header and the footer, and both are verified."""
    damage, reason, _ = DAMAGES[case]
    await put(server, tenant, "key", DATA)
    [file] = server.stored(tenant)
    damage(file)
    assert lost(await failure(server.storage.Stat(StatRequest(tenant_id=tenant, key="key")))) == reason


async def test_a_range_needs_only_its_own_segments(server: Server, tenant: str) -> None:
    """Next to a damaged segment the others are still there to be rescued; no range gives a byte of the bad one."""
    await put(server, tenant, "key", DATA)
    [file] = server.stored(tenant)
    flip(V1.stored_offset(1) + 500)(file)
    assert (await get(server, tenant, "key", offset=0, length=MIB)).data == DATA[:MIB]
    assert (await get(server, tenant, "key", offset=2 * MIB)).data == DATA[2 * MIB :]
    for offset, length, before in (
        (MIB, 1, b""),
        (2 * MIB - 1, 1, b""),
        (MIB - 1, 2, DATA[MIB - 1 : MIB]),
        (-1001, 1, b""),
    ):
        told, plaintext = await failed_get(server, tenant, "key", offset=offset, length=length)
        assert lost(told) == "OBJECT_TAMPERED"
        assert plaintext == before


@pytest.mark.parametrize("whose", ["the same tenant's", "another tenant's"])
async def test_an_object_in_anothers_place(server: Server, tenant: str, whose: str) -> None:
    """With their files swapped neither object is read; with the files back in place both are."""
    other = tenant if whose == "the same tenant's" else await register(server, f"{tenant}-other")
    here, there = (tenant, "one"), (other, "two" if other == tenant else "one")
    files = {}
    for tenant_id, key in (here, there):
        await put(server, tenant_id, key, f"{tenant_id} {key}".encode())
        [files[tenant_id, key]] = [file for file in server.stored(tenant_id) if file.name == f"_{key}!"]
    swap(files[here], files[there])
    for tenant_id, key in (here, there):
        told, plaintext = await failed_get(server, tenant_id, key)
        assert (lost(told), plaintext) == ("OBJECT_TAMPERED", b"")
        assert tenant not in told.message  # whose it is is nobody's business
        stat = server.storage.Stat(StatRequest(tenant_id=tenant_id, key=key))
        assert lost(await failure(stat)) == "OBJECT_TAMPERED"
    swap(files[here], files[there])
    for tenant_id, key in (here, there):
        assert (await get(server, tenant_id, key)).data == f"{tenant_id} {key}".encode()


def swap(one: Path, other: Path) -> None:
    """Each file under the other's name."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


async def test_a_newer_format_is_told_apart_from_damage(server: Server, tenant: str) -> None:
    """UNIMPLEMENTED and not DATA_LOSS: another release of keystow reads it."""
    await put(server, tenant, "key", b"content")
    [file] = server.stored(tenant)
    stored = bytearray(file.read_bytes())
    stored[8:10] = (2).to_bytes(2, "big")
    file.write_bytes(stored)
    told = await failure(get(server, tenant, "key"))
    assert (told.code, told.reason) == (grpc.StatusCode.UNIMPLEMENTED, "OBJECT_FORMAT_UNSUPPORTED")


async def test_a_damaged_data_key(server: Server, tenant: str) -> None:
    """KMS refuses to unwrap it, and the caller is told that it is the stored key, not the KMS key."""
    await put(server, tenant, "key", b"content")
    [file] = server.stored(tenant)
    stored = file.read_bytes()
    arn = stored.index(b"arn:aws:kms:")
    flip(stored.index(b"\x12", arn + 60) + 30)(file)  # inside the KMS ciphertext, which follows the ARN
    told = await failure(get(server, tenant, "key"))
    assert (told.code, told.reason) == (grpc.StatusCode.DATA_LOSS, "WRAPPED_KEY_INVALID")


async def test_a_lost_disk_is_not_an_empty_one(server: Server, tenant: str) -> None:
    """With the store's directory gone nothing is OBJECT_NOT_FOUND: that would tell a client that its backup is gone."""
    await put(server, tenant, "key", b"content")
    store = server.data_dir / "stores" / "us"
    aside = store.with_name("unmounted")
    shutil.move(store, aside)
    try:
        told = await failure(get(server, tenant, "key"))
        assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "STORE_MISCONFIGURED")
    finally:
        shutil.move(aside, store)
    assert (await get(server, tenant, "key")).data == b"content"
