"""The local keyring's files: what they withstand, and what a running server makes of them."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.keyring import DAY, REGION, Deployment
from keystow_service.adapters import posix_files
from keystow_service.adapters.keyring_file import KeyringFile
from keystow_service.adapters.root_key import KeyringError
from keystow_service.errors import (
    KmsAccessDeniedError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsUnavailableError,
    WrappedKeyInvalidError,
)
from keystow_service.ports import EncryptionContext

ACME: EncryptionContext = {"keystow:tenant": "acme"}


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def test_files_are_private(deployment: Deployment) -> None:
    """Nobody but the owner can read the keyring, the root key, or their folder."""
    deployment.serve()
    deployment.create()
    assert deployment.root_key.stat().st_mode & 0o777 == 0o600
    assert deployment.keyring.stat().st_mode & 0o777 == 0o600
    assert deployment.keyring.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in deployment.keyring.parent.iterdir()) == [
        "keyring.json",
        "keyring.json.lock",
        "root.key",
    ]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_root_key_open_to_others(deployment: Deployment, mode: int) -> None:
    """A root key that others may read or write is refused, with the file's name and what to do."""
    deployment.serve()
    deployment.root_key.chmod(mode)
    with pytest.raises(KeyringError, match=f"{deployment.root_key} has mode {mode:04o}.*chmod 600"):
        deployment.serve()


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_root_key_of_another_size(deployment: Deployment, content: bytes) -> None:
    """A root key file that does not hold 32 bytes is refused by name."""
    deployment.serve()
    deployment.root_key.write_bytes(content)
    with pytest.raises(KeyringError, match=str(deployment.root_key)):
        deployment.serve()


def test_lost_root_key(deployment: Deployment) -> None:
    """A root key is never made anew over keys that the lost one wrapped."""
    deployment.create()
    deployment.root_key.unlink()
    with pytest.raises(KeyringError, match="missing"):
        deployment.serve()
    with pytest.raises(KeyringError, match="missing"):
        deployment.create()
    assert not deployment.root_key.exists()


def test_lost_keyring(deployment: Deployment) -> None:
    """A keyring that vanished beside its root key is a loss to repair, not a first start."""
    deployment.create()
    deployment.keyring.unlink()
    with pytest.raises(KeyringError, match="Restore"):
        deployment.serve()
    assert not deployment.keyring.exists()


def test_first_use_that_was_cut_short(deployment: Deployment) -> None:
    """A crash between the empty keyring and its root key leaves what the next start completes."""
    deployment.serve()
    deployment.root_key.unlink()
    deployment.root_key.with_name("root.key.new").write_bytes(b"half")
    deployment.serve()
    assert deployment.root_key.stat().st_size == 32


def test_root_key_of_another_keyring(deployment: Deployment) -> None:
    """A root key that does not open the keyring's material is found at the start."""
    deployment.create()
    deployment.root_key.write_bytes(os.urandom(32))
    with pytest.raises(KeyringError, match="root key"):
        deployment.serve()


def test_no_key_in_the_keyring(deployment: Deployment) -> None:
    """The keyring file alone does not hold key material: it is wrapped anew for each key, under the root key."""
    arn, another = deployment.create(), deployment.create()
    _, keyring = KeyringFile(deployment.keyring, deployment.root_key, deployment.clock).load()
    swapped = replace(keyring[arn.text], material=keyring[another.text].material)
    KeyringFile(deployment.keyring, deployment.root_key, deployment.clock).update(
        lambda standing: ({**standing, arn.text: swapped}, None)
    )
    with pytest.raises(KeyringError, match=arn.text):
        deployment.serve()


async def test_change_without_restart(deployment: Deployment) -> None:
    """A running server sees each of many quick changes at the next use."""
    server = deployment.serve()
    arn = deployment.create()
    for _ in range(50):
        await server.generate_data_key(arn, ACME)
        deployment.admin.disable(arn)
        with pytest.raises(KmsKeyDisabledError):
            await server.generate_data_key(arn, ACME)
        deployment.admin.enable(arn)


async def test_every_write_shows(deployment: Deployment) -> None:
    """No two states of the file look alike to stat, also when inodes and sizes repeat within one tick of the clock."""
    arn = deployment.create()
    file = KeyringFile(deployment.keyring, deployment.root_key, deployment.clock)
    seen = {file.identity()}
    for count in range(2, 102):
        (deployment.admin.disable if count % 2 else deployment.admin.enable)(arn)
        if count == 2:
            continue  # it was enabled already: nothing was written
        seen.add(file.identity())
        assert len(seen) == count - 1


async def test_unchanged_file_is_not_read(deployment: Deployment) -> None:
    """Without a change, the use of a key costs one stat: what stands in the file is not looked at."""
    server = deployment.serve()
    arn = deployment.create()
    key = await server.generate_data_key(arn, ACME)
    status = deployment.keyring.stat()
    with deployment.keyring.open("r+b") as file:  # the same inode, size and time
        file.write(b"x" * status.st_size)
    os.utime(deployment.keyring, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (await server.unwrap(arn, key.wrapped, ACME)).plaintext == key.plaintext


def _drop_field(text: str) -> str:
    keyring = json.loads(text)
    del keyring["keys"][0]["tenants"]
    return json.dumps(keyring)


def _tenants_as_text(text: str) -> str:
    keyring = json.loads(text)
    keyring["keys"][0]["tenants"] = "*"
    return json.dumps(keyring)


def _twice(text: str) -> str:
    keyring = json.loads(text)
    keyring["keys"] *= 2
    return json.dumps(keyring)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-10],
        lambda text: text[:0],
        lambda text: f"[{text}]",
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace("ENABLED", "PENDING_DELETION"),
        lambda text: text.replace("ENABLED", "UNAVAILABLE"),
        lambda text: text.replace("ENABLED", "enabled"),
        lambda text: text.replace("000000000000", "alias"),
        lambda text: text.replace("+00:00", ""),
        lambda text: text.replace('"provider": false', '"provider": 0'),
        lambda text: text.replace('"provider"', '"supplier"'),
        _drop_field,
        _tenants_as_text,
        _twice,
    ],
)
async def test_broken_keyring(deployment: Deployment, damage: Callable[[str], str]) -> None:
    """A keyring that cannot be read closes every key, without going on from memory, until it is repaired."""
    server = deployment.serve()
    arn = deployment.create()
    key = await server.generate_data_key(arn, ACME)
    intact = deployment.keyring.read_text()
    assert damage(intact) != intact
    deployment.keyring.write_text(damage(intact))
    for _ in range(2):
        with pytest.raises(KmsUnavailableError) as caught:
            await server.unwrap(arn, key.wrapped, ACME)
        assert caught.value.details == {"key_arn": arn.text}
        assert str(deployment.keyring) not in caught.value.message
    with pytest.raises(KeyringError, match=str(deployment.keyring)):
        deployment.serve()
    with pytest.raises(KeyringError, match=str(deployment.keyring)):
        deployment.admin.disable(arn)
    deployment.keyring.write_text(intact)
    assert (await server.unwrap(arn, key.wrapped, ACME)).plaintext == key.plaintext


async def test_vanished_keyring(deployment: Deployment) -> None:
    """A keyring that is gone closes every key."""
    server = deployment.serve()
    arn = deployment.create()
    deployment.keyring.unlink()
    with pytest.raises(KmsUnavailableError):
        await server.generate_data_key(arn, ACME)


async def test_damaged_material(deployment: Deployment) -> None:
    """Material that does not open under the root key is the operator's trouble, not the tenant's data loss."""
    server = deployment.serve()
    arn = deployment.create()
    keyring = json.loads(deployment.keyring.read_text())
    keyring["keys"][0]["material"] = ["AAAA" * 20]
    deployment.keyring.write_text(json.dumps(keyring))
    with pytest.raises(KmsUnavailableError):
        await server.generate_data_key(arn, ACME)


async def test_after_the_deletion_date(deployment: Deployment) -> None:
    """Past its date a key is not found, and a running server that notices destroys its material."""
    server = deployment.serve()
    arn = deployment.create()
    key = await server.generate_data_key(arn, ACME)
    deployment.admin.schedule_deletion(arn, days=7)
    deployment.clock.advance(7 * DAY)
    assert arn.text in deployment.keyring.read_text()
    with pytest.raises(KmsKeyNotFoundError) as caught:
        await server.unwrap(arn, key.wrapped, ACME)
    assert caught.value.details["key_state"] == "NOT_FOUND"
    assert arn.text not in deployment.keyring.read_text()
    with pytest.raises(KeyringError, match="no key"):
        deployment.admin.cancel_deletion(arn)


async def test_refused_though_not_destroyed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the server cannot write, a key past its date is refused all the same."""
    server = deployment.serve()
    arn = deployment.create()
    deployment.admin.schedule_deletion(arn, days=7)
    deployment.clock.advance(7 * DAY)
    monkeypatch.setattr(posix_files, "_TIMEOUT", 0.0)
    with (
        posix_files.file_lock(deployment.keyring.with_name("keyring.json.lock")),
        pytest.raises(KmsKeyNotFoundError),
    ):
        await server.generate_data_key(arn, ACME)
    assert arn.text in deployment.keyring.read_text()


async def test_key_for_any_tenant(deployment: Deployment) -> None:
    """A provider key serves every tenant, but nobody without one."""
    server = deployment.serve()
    arn = deployment.admin.ensure_provider_key(REGION)
    for tenant in ("acme", "other"):
        await server.generate_data_key(arn, {"keystow:tenant": tenant})
    with pytest.raises(KmsAccessDeniedError):
        await server.generate_data_key(arn, {"keystow:deployment": "d-1"})


async def test_wrapped_key_names_its_key(deployment: Deployment) -> None:
    """Each byte of a wrapped data key counts, its clear front too."""
    server = deployment.serve()
    arn = deployment.create()
    deployment.admin.rotate(arn)
    wrapped = (await server.generate_data_key(arn, ACME)).wrapped
    assert len(wrapped) == 81
    for place in range(len(wrapped)):
        damaged = bytearray(wrapped)
        damaged[place] ^= 3  # version 2 becomes 1
        with pytest.raises(WrappedKeyInvalidError):
            await server.unwrap(arn, bytes(damaged), ACME)


async def test_rotation_changes_the_material(deployment: Deployment) -> None:
    """After rotation new data keys are wrapped with the new material, old ones still with theirs."""
    server = deployment.serve()
    arn = deployment.create()
    old = await server.generate_data_key(arn, ACME)
    assert len(deployment.admin.rotate(arn).material) == 2
    new = await server.generate_data_key(arn, ACME)
    assert (old.wrapped[17:21], new.wrapped[17:21]) == (b"\0\0\0\1", b"\0\0\0\2")


async def test_many_at_once(deployment: Deployment) -> None:
    """Concurrent uses across a change all see one whole state or the other."""
    server = deployment.serve()
    arn = deployment.create()
    uses = [asyncio.create_task(server.generate_data_key(arn, ACME)) for _ in range(50)]
    await asyncio.to_thread(deployment.admin.disable, arn)
    uses += [asyncio.create_task(server.generate_data_key(arn, ACME)) for _ in range(50)]
    results = await asyncio.gather(*uses, return_exceptions=True)
    assert all(isinstance(result, KmsKeyDisabledError) for result in results[50:])
    assert {type(result).__name__ for result in results[:50]} <= {"DataKey", "KmsKeyDisabledError"}
