"""Programs that open archives, of the machine's own: tar, unzip, Java."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_READ_ZIP = Path(__file__).with_name("ReadZip.java")


@dataclass(frozen=True, slots=True)
class JavaEntry:
    """What ZipInputStream says of a member that it has read, and checked against its CRC-32."""

    name: str
    size: int
    modified: int  # seconds since 1970


def untar_here(archive: Path, folder: Path) -> None:
    """All members, by the system's tar; it may not even warn."""
    _run("tar", "--extract", "--file", str(archive), "--directory", str(folder))


def tar_names(archive: Path) -> list[str]:
    """As the system's tar lists them."""
    return _run("tar", "--list", "--quoting-style=literal", "--file", str(archive)).splitlines()


def unzip_here(archive: Path, folder: Path) -> None:
    """All members, by Info-ZIP's unzip."""
    _run("unzip", "-q", str(archive), "-d", str(folder))


def unzip_member(archive: Path, name: str) -> str:
    """One member's text, by Info-ZIP's unzip."""
    return _run("unzip", "-p", str(archive), name)


def read_in_java(archive: Path) -> list[JavaEntry]:
    """All members in the order in which they come, by java.util.zip.ZipInputStream."""
    lines = _run("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(_READ_ZIP), str(archive)).splitlines()
    fields = [line.rsplit("\t", 2) for line in lines]
    return [JavaEntry(name, int(size), int(modified)) for name, size, modified in fields]


def files_below(folder: Path) -> dict[str, bytes]:
    """What was unpacked, by its path from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()}


def _run(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed on this CI machine")
        pytest.skip(f"{program} is not installed")
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, encoding="utf-8", env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), (program, done.stderr)
    return done.stdout
