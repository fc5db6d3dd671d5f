"""Data whose keyring is gone: the server refuses to begin another, and says what to do."""

import shutil
from pathlib import Path

import pytest

from keystow_service.app import StartError, open_server
from keystow_service.settings import Settings
from rpc.wire import get, put
from servers.in_process import register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def start(data_dir: Path) -> None:
    """Start a server there, and stop it."""
    async with open_server(Settings(listen="127.0.0.1:0", data_dir=data_dir)):
        pass


@pytest.mark.parametrize(
    ("left", "found"),
    [
        (("registry.db", "stores"), "the registry has tenants"),
        (("registry.db",), "the registry has tenants"),
        (("stores",), "there are objects in"),
    ],
    ids=["both", "tenants", "objects"],
)
async def test_a_lost_keyring_is_not_begun_anew(tmp_path: Path, left: tuple[str, ...], found: str) -> None:
    """Tenants or objects under its keys are enough to refuse; with the keyring back from the backup all is there."""
    data_dir, backup = tmp_path / "data", tmp_path / "backup"
    async with serving(data_dir) as server:
        await register(server, "acme")
        await put(server, "acme", "key", b"content")
    shutil.copytree(data_dir, backup)
    for entry in data_dir.iterdir():
        if entry.name.removesuffix("-wal").removesuffix("-shm") not in left:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for _ in range(2):
        with pytest.raises(
            StartError, match=f"keyring.json is missing, but {found}.*Restore {data_dir / 'keyring'} from"
        ):
            await start(data_dir)
        assert not (data_dir / "keyring").exists()
    shutil.rmtree(data_dir)
    shutil.copytree(backup, data_dir)
    async with serving(data_dir) as server:
        assert (await get(server, "acme", "key")).data == b"content"


async def test_a_place_without_tenants_and_objects_gets_a_keyring(tmp_path: Path) -> None:
    """A server that was started and never used has lost nothing."""
    await start(tmp_path)
    shutil.rmtree(tmp_path / "keyring")
    await start(tmp_path)
    assert (tmp_path / "keyring" / "keyring.json").exists()
