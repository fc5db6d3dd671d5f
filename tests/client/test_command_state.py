"""The small files that a later command goes on by: whose they must be, and that nothing else is followed or altered."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from client.content import names
from keystow_client.cli.partial_archive import PartialArchive, Selection
from keystow_client.cli.state import StateError, read_state, remove_state, write_state

STATE = {"token": "secret"}
SOMEBODY = 4711  # a user's number
WHOLE_EXPORT = Selection("acme", "", "", "stop")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state is to be."""
    return tmp_path / "state.json"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file that is none of the state's business."""
    file = tmp_path / "precious"
    file.write_bytes(b"precious")
    return file


def test_what_is_written_is_read(path: Path) -> None:
    """And leaves nothing beside it, nor when it is removed."""
    assert read_state(path, STATE.keys()) is None
    for state in (STATE, {"token": "another"}):
        write_state(path, state)
        assert read_state(path, STATE.keys()) == state
        assert names(path.parent) == [path.name]
    remove_state(path)
    assert names(path.parent) == []


def test_a_planted_link_is_not_followed(path: Path, precious: Path) -> None:
    """What it leads to stays as it is."""
    path.with_name("state.json.new").symlink_to(precious)
    write_state(path, STATE)
    assert precious.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert read_state(path, STATE.keys()) == STATE


def test_a_planted_file_is_not_written_into(path: Path) -> None:
    """Whoever has it open, or may open it, learns nothing."""
    planted = path.with_name("state.json.new")
    planted.touch()
    planted.chmod(0o666)
    with planted.open("rb") as spy:
        write_state(path, STATE)
        assert spy.read() == b""
    assert path.stat().st_mode & 0o777 == 0o600


def a_link(path: Path) -> None:
    """Even to a good state."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_directory(path: Path) -> None:
    """Which cannot be read."""
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    """Which nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def another_users(path: Path) -> None:
    """Who may say what is uploaded next, if it counts."""
    os.chown(path, SOMEBODY, SOMEBODY)


@pytest.mark.parametrize("change", [a_link, a_directory, a_pipe, pytest.param(another_users, marks=as_root)])
def test_what_is_no_file_of_ones_own_is_no_state(path: Path, change: Callable[[Path], None]) -> None:
    """It is refused in words, and left alone."""
    write_state(path, STATE)
    change(path)
    with pytest.raises(StateError, match="remove it to begin anew"):
        read_state(path, STATE.keys())
    assert os.path.lexists(path)


@as_root
def test_whoever_owns_the_directory_may_own_the_state(path: Path) -> None:
    """Network file systems give files the owner that they want; and that user could exchange the file at any time."""
    write_state(path, STATE)
    for each in (path, path.parent):
        os.chown(each, SOMEBODY, SOMEBODY)
    assert read_state(path, STATE.keys()) == STATE


def test_an_archive_is_not_continued_through_a_link(tmp_path: Path, precious: Path) -> None:
    """What it leads to would be cut."""
    archive = tmp_path / "acme.tar"
    begun = PartialArchive(archive, WHOLE_EXPORT, overwrite=False)
    begun.begin()
    begun.file.write(b"something")
    begun.close()
    assert json.loads((tmp_path / "acme.tar.keystow-checkpoint").read_bytes())["archive_size"] == 0
    begun.part.unlink()
    begun.part.symlink_to(precious)
    continued = PartialArchive(archive, WHOLE_EXPORT, overwrite=False)
    with pytest.raises(StateError, match="remove it to begin anew"):
        continued.go_on()
    continued.close()
    assert precious.read_bytes() == b"precious"
    assert begun.part.is_symlink()


@pytest.mark.parametrize("target", ["precious", "missing"])
def test_force_begins_anew_over_a_planted_link(tmp_path: Path, precious: Path, target: str) -> None:
    """What it leads to is neither opened nor made."""
    before = names(tmp_path)
    archive = PartialArchive(tmp_path / "acme.tar", WHOLE_EXPORT, overwrite=True)
    archive.part.symlink_to(target)
    archive.begin()
    assert archive.part.is_file()
    assert not archive.part.is_symlink()
    assert sorted(names(tmp_path)) == sorted([*before, archive.part.name, "acme.tar.keystow-checkpoint"])
    archive.close()
    assert precious.read_bytes() == b"precious"
