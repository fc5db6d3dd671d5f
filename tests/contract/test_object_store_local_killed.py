"""A process that is killed in the middle of what it does to the local store: nothing comes back, and nothing stays."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from contract.store_place import NAME
from keystow_service.adapters.local_store import LocalStore, open_local_store
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import ObjectNotFoundError, UploadExpiredError
from keystow_service.ports import Absent, UnfinishedUpload

# A process that kills itself at the last of the events that its arguments name, which come in this order.
_DYING_PROCESS = """
import asyncio, os, signal, sys
from pathlib import Path
from keystow_service.adapters.local_store import open_local_store
from keystow_service.ports import Absent

root, name, task, *events = sys.argv[1:]

def hear(event, arguments):
    if armed and events and event == events[0]:
        events.pop(0)
        if not events:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with open_local_store(Path(root)) as store:
        match task:
            case "write":
                armed.append(True)
                await store.begin(name, Absent()).write(bytearray(b"data"))
                os.mkdir(root + "/written")
            case "begin":
                armed.append(True)
                await store.begin_resumable(name, Absent(), lambda *_: None)
            case "commit" | "discard":
                upload = await store.begin_resumable(name, Absent(), lambda *_: None)
                print(upload.id, flush=True)
                armed.append(True)
                await (upload.commit(bytearray(b"data")) if task == "commit" else store.discard(name, upload.id))

armed = []
sys.addaudithook(hear)
asyncio.run(main())
"""

# In the middle of the commit: the object stands, its directory is not synced yet. (The first rename is in vain, because
# there is no directory; the second one carries it out.)
_COMMITTING = ("commit", "os.rename", "os.rename", "open")


def killed(root: Path, task: str, *events: str) -> str:
    """What a process said that was killed in the middle of its task: the id of its upload, if it had one."""
    command = [sys.executable, "-c", _DYING_PROCESS, str(root), NAME, task, *events]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert process.returncode == -signal.SIGKILL
    return process.stdout.strip()


def left(root: Path) -> Sequence[str]:
    """The files of uploads."""
    own = root / ".keystow"
    return [path.name for directory in ("uploads", "resumable") for path in (own / directory).iterdir()]


async def unfinished(store: LocalStore) -> Sequence[UnfinishedUpload]:
    """What the store lists."""
    async with aclosing(store.unfinished("")) as uploads:
        return [upload async for upload in uploads]


async def test_a_commit_that_was_killed_is_not_carried_out_again(tmp_path: Path) -> None:
    """Once its object has been deleted, an upload whose process died right after the commit never brings it back."""
    upload_id = killed(tmp_path, *_COMMITTING)
    async with open_local_store(tmp_path) as store:
        assert (await store.read(NAME, 0, 10)).data == b"data"
        await store.delete(NAME)
        with pytest.raises(UploadExpiredError):
            await store.resume(NAME, Absent(), upload_id, PartChain(), lambda *_: None)
        with pytest.raises(ObjectNotFoundError):
            await store.head(NAME)


@pytest.mark.parametrize(
    ("dying", "name"),
    [
        (("write", "os.mkdir"), ""),
        (("begin", "os.rename"), ""),  # before the journal has its name
        (("begin", "os.rename", "open"), NAME),  # before the data file is there
        (_COMMITTING, NAME),
        (("discard", "os.remove"), NAME),  # before the data file goes
        (("discard", "os.remove", "os.remove"), NAME),  # before the journal goes
    ],
)
async def test_what_a_killed_process_leaves_is_dead(tmp_path: Path, dying: tuple[str, ...], name: str) -> None:
    """It is listed as such, however young, and discarding removes it; the object, if it was committed, stays."""
    killed(tmp_path, *dying)
    async with open_local_store(tmp_path) as store:
        [dead] = await unfinished(store)
        assert (dead.name, dead.dead) == (name, True)
        await store.discard(dead.name, dead.id)
        assert left(tmp_path) == []
        assert await unfinished(store) == []
        assert len(await store.list("", limit=2)) == (dying is _COMMITTING)


async def test_the_uploads_of_the_living_are_left_alone(tmp_path: Path) -> None:
    """A plain upload that is being written is not listed, and not discarded by whoever guesses its id."""
    async with open_local_store(tmp_path) as store, open_local_store(tmp_path) as other:
        upload = store.begin(NAME, Absent())
        await upload.write(bytearray(b"da"))
        assert await unfinished(other) == []
        [upload_id] = left(tmp_path)
        await other.discard(NAME, upload_id)
        await upload.commit(bytearray(b"ta"))
        assert (await other.read(NAME, 0, 10)).data == b"data"
    assert left(tmp_path) == []
