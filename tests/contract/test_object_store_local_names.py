"""Names on the local disk: any name has one file, any listing is in byte order and reads no more than it must."""

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystow_service.adapters.local_store import LocalStore, listing, open_local_store
from keystow_service.adapters.local_store.paths import relative_path
from keystow_service.errors import ObjectNotFoundError
from keystow_service.ports import Absent

# Segments short and long, cut at every place where cutting is delicate, of bytes on both sides of "/".
_SEGMENTS = st.builds(
    "_{}{}{}".format,
    st.text("a-.0~%", max_size=3),
    st.sampled_from(["", *("l" * length for length in (193, 197, 198, 199, 200, 201, 250, 395, 399, 400))]),
    st.text("a-.0~%", max_size=4),
)
_NAMES = st.lists(_SEGMENTS, min_size=1, max_size=3).map(lambda segments: "objects/acme/" + "/".join(segments) + "!")


@given(first=_NAMES, second=_NAMES)
def test_each_name_has_a_path_of_its_own(first: str, second: str) -> None:
    """Paths stay below the root, their pieces fit file systems, and different names never share one."""
    path = relative_path(first)
    pieces = path.split("/")
    assert all(0 < len(piece) <= 255 for piece in pieces)
    assert not {"", ".", ".."}.intersection(pieces)
    assert path.replace("+/+", "") == first
    if first != second:
        other = relative_path(second)
        assert path != other
        assert not other.startswith(f"{path}/")


@settings(max_examples=60, deadline=None)
@given(names=st.sets(_NAMES, max_size=12), data=st.data())
def test_listing_is_the_sorted_names(names: set[str], data: st.DataObject) -> None:
    """For any names, prefix, start and batch, a listing gives exactly the names between, in byte order."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in names:
            path = root / relative_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for _ in range(5):
            prefix = data.draw(_NAMES.flatmap(_cut) | st.sampled_from(sorted(names) or [""]).flatmap(_cut))
            start = data.draw(_NAMES.flatmap(_cut) | st.sampled_from(sorted(names) or [""]))
            wanted = [name for name in sorted(names, key=str.encode) if name.startswith(prefix) and name > start]
            batch = data.draw(st.integers(1, 14))
            assert [name for name, _ in listing.names(root, prefix, start, batch=batch)] == wanted


def test_listing_reads_only_what_it_needs(tmp_path: Path) -> None:
    """A page opens the directories on its way and those it takes names from, however many there are."""
    for first in range(10):
        for second in range(10):
            path = tmp_path / "objects" / "acme" / f"_{first}" / f"_{second}"
            path.mkdir(parents=True)
            for third in range(3):
                (path / f"_{third}!").touch()
    (tmp_path / "objects" / "other" / "_deep").mkdir(parents=True)
    with _opened_directories(tmp_path) as opened:
        page = islice(listing.names(tmp_path, "objects/acme/", "objects/acme/_4/_7/_1!", batch=4), 3)
        assert [name for name, _ in page] == [f"objects/acme/_4/{end}" for end in ("_7/_2!", "_8/_0!", "_8/_1!")]
    assert opened == [f"objects/acme{end}" for end in ("", "/_4", "/_4/_7", "/_4/_8")]


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "/etc/passwd", "a//b", "a/", "../a", "a/../b", "a/..", ".", "a/."),
        *(".keystow/uploads/x", "a+b", "a\0b", "a\nb", "ä"),
    ],
)
async def test_names_that_could_leave_the_root(tmp_path: Path, name: str) -> None:
    """A name that objects/names.py never makes is a programming error, and touches nothing."""
    async with open_local_store(tmp_path / "store") as store:
        for call in (
            store.head(name),
            store.read(name, 0, 1),
            store.delete(name),
            store.begin(name, Absent()).commit(bytearray(b"x")),
        ):
            with pytest.raises(ValueError, match="object names"):
                await call
        assert await store.list("", limit=10) == []


async def test_long_segment_that_ends_in_dots(tmp_path: Path) -> None:
    """The pieces of a long segment never become a way up, wherever it is cut."""
    async with open_local_store(tmp_path) as store:
        names = [f"objects/acme/_{'x' * length}../_a!" for length in range(195, 203)]
        for name in names:
            await _put(store, name)
        assert [stored.name for stored in await store.list("objects/acme/", limit=99)] == sorted(names)
        assert _entries(tmp_path) == [".keystow", "objects"]


async def test_symbolic_links_are_no_objects(tmp_path: Path) -> None:
    """What a link points to is not the store's: it is neither read nor listed nor deleted."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    async with open_local_store(tmp_path / "store") as store:
        await _put(store, "objects/acme/_a!")
        (tmp_path / "store" / "objects" / "acme" / "_link!").symlink_to(outside)
        for call in (
            store.head("objects/acme/_link!"),
            store.read("objects/acme/_link!", 0, 6),
            store.delete("objects/acme/_link!"),
        ):
            with pytest.raises(ObjectNotFoundError):
                await call
        assert [stored.name for stored in await store.list("", limit=9)] == ["objects/acme/_a!"]


async def _put(store: LocalStore, name: str) -> None:
    await store.begin(name, Absent()).commit(bytearray(b"x"))


def _entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _cut(name: str) -> st.SearchStrategy[str]:
    return st.integers(0, len(name)).map(lambda length: name[:length])


@contextmanager
def _opened_directories(root: Path) -> Iterator[list[str]]:
    """What is listed below ``root``, by Python's audit events."""
    opened: list[str] = []
    watching = threading.Event()
    watching.set()

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if watching.is_set() and event == "os.scandir":
            path = Path(str(arguments[0]))
            if path.is_relative_to(root):
                opened.append(path.relative_to(root).as_posix())

    sys.addaudithook(hear)
    try:
        yield opened
    finally:
        watching.clear()  # a hook cannot be removed
