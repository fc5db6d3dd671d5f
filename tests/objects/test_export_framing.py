"""Tar and zip framing at their limits, read by other people's programs. Large members are holes in files."""

import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keystow_service.errors import RequestInvalidError
from keystow_service.model import GIB
from keystow_service.objects.export.framing import Framing, Member
from keystow_service.objects.export.tar import TarFraming
from keystow_service.objects.export.zip import MAX_MEMBERS, ZipFraming
from objects.unpackers import tar_names, unzip_member

TIME = datetime(2026, 11, 24, 10, 20, 31, 999_999, UTC)
SMALL = b"small"


def small(name: str, modified: datetime = TIME) -> Member:
    """A member with the content SMALL."""
    return Member(name, len(SMALL), modified, zlib.crc32(SMALL))


def write(path: Path, framing: Framing, members: Sequence[Member]) -> None:
    """An archive of small members and of holes."""
    with path.open("wb") as file:
        for member in members:
            file.write(framing.begin(member))
            if member.size == len(SMALL):
                file.write(SMALL)
            else:
                file.seek(member.size, 1)
            file.write(framing.end(member))
        file.write(framing.finish())


@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 1200 * GIB])
def test_tar_sizes(tmp_path: Path, size: int) -> None:
    """From 8 GiB on the size stands in a pax header; what follows is found, by Python's reader and the system's."""
    archive = tmp_path / "archive.tar"
    write(archive, TarFraming(), [Member("large", size, TIME), small("small")])
    with tarfile.open(archive) as tar:
        large, last = tar.getmembers()
        assert (large.name, large.size, last.name) == ("large", size, "small")
        file = tar.extractfile(last)
        assert file
        assert file.read() == SMALL
    assert tar_names(archive) == ["large", "small"]


def test_tar_metadata(tmp_path: Path) -> None:
    """A regular file, readable by all, of nobody by name, at its object's time; an ordinary member has one block."""
    archive = tmp_path / "archive.tar"
    write(archive, TarFraming(), [small("a/b.txt")])
    assert archive.stat().st_size == 4 * tarfile.BLOCKSIZE
    with tarfile.open(archive) as tar:
        [member] = tar.getmembers()
    assert (member.mode, member.uid, member.gid, member.uname, member.gname) == (0o644, 0, 0, "", "")
    assert (member.mtime, member.type) == (int(TIME.timestamp()), tarfile.REGTYPE)


@pytest.mark.parametrize("size", [4 * GIB - 2, 4 * GIB - 1, 4 * GIB, 1200 * GIB])
def test_zip_sizes(tmp_path: Path, size: int) -> None:
    """Around 4 GiB and far beyond it the sizes are right, and so is where the next member begins."""
    archive = tmp_path / "archive.zip"
    write(archive, ZipFraming(), [small("first"), Member("large", size, TIME), small("small")])
    with zipfile.ZipFile(archive) as opened:
        assert [(info.filename, info.file_size, info.compress_size) for info in opened.infolist()] == [
            ("first", 5, 5),
            ("large", size, size),
            ("small", 5, 5),
        ]
        assert opened.read("small") == SMALL
    if size != 4 * GIB - 1:  # which Info-ZIP 6 takes for a sign of Zip64 once more, and loses its way
        assert unzip_member(archive, "small").encode() == SMALL


def test_zip_metadata(tmp_path: Path) -> None:
    """Stored, with UTF-8 names and Unix permissions; the time is there in UTC, and to two seconds in MS-DOS's form."""
    archive = tmp_path / "archive.zip"
    write(archive, ZipFraming(), [small("ä/b")])
    with zipfile.ZipFile(archive) as opened:
        [info] = opened.infolist()
    assert (info.filename, info.compress_type, info.flag_bits) == ("ä/b", zipfile.ZIP_STORED, 1 << 11)
    assert (info.external_attr >> 16, info.create_system) == (0o100644, 3)
    assert info.date_time == (2026, 11, 24, 10, 20, 30)


@pytest.mark.parametrize(
    ("time", "shown"), [(datetime(1970, 1, 1, tzinfo=UTC), 1980), (datetime(2150, 6, 6, tzinfo=UTC), 2107)]
)
def test_zip_times_that_it_cannot_tell(tmp_path: Path, time: datetime, shown: int) -> None:
    """Before 1980 and after 2107 the nearest year stands."""
    archive = tmp_path / "archive.zip"
    write(archive, ZipFraming(), [small("a", time)])
    with zipfile.ZipFile(archive) as opened:
        assert opened.getinfo("a").date_time[0] == shown


@pytest.mark.parametrize("count", [MAX_MEMBERS - 1, MAX_MEMBERS])
def test_zip_members(tmp_path: Path, count: int) -> None:
    """As many as there may be are read back; with one more the error says what to do."""
    archive = tmp_path / "archive.zip"
    framing = ZipFraming()
    write(archive, framing, [small(f"{number:05}") for number in range(count)])
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.namelist()) == count
        assert opened.read(f"{count - 1:05}") == SMALL
    assert framing.held() < 250 * count
    for _ in range(MAX_MEMBERS - count):
        framing.begin(small("more"))
    with pytest.raises(RequestInvalidError, match="ARCHIVE_FORMAT_TAR"):
        framing.begin(small("too many"))


def _names() -> Iterator[str]:
    """Longer than ustar's fields, and beyond ASCII."""
    yield "a" * 101
    yield "/".join(["folder"] * 60)
    yield "ä" * 120
    yield "日本語/" * 30 + "x"


def test_tar_names_of_any_length(tmp_path: Path) -> None:
    """What does not fit a block stands in a pax header."""
    archive = tmp_path / "archive.tar"
    write(archive, TarFraming(), [small(name) for name in _names()])
    with tarfile.open(archive) as tar:
        assert tar.getnames() == list(_names())
    assert tar_names(archive) == list(_names())
