"""The files below a directory, and everything there that is none."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keystow_client.cli.transfers import SkippedError


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file, and its path from the directory down, with slashes."""

    path: Path
    relative: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that cannot be stored, and why."""

    path: Path
    problem: Exception


@dataclass(frozen=True, slots=True)
class EmptyDirectory:
    """A directory without entries: there is nothing of it to store."""

    path: Path


def walk(directory: Path, prefix: str = "") -> Iterator[LocalFile | Leftover | EmptyDirectory]:
    """Everything below the directory, by name. Symbolic links are not followed."""
    try:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Leftover(directory, error)
        return
    if not entries:
        yield EmptyDirectory(directory)
    for entry in entries:
        yield from _look_at(entry, prefix + entry.name)


def _look_at(entry: os.DirEntry[str], relative: str) -> Iterator[LocalFile | Leftover | EmptyDirectory]:
    path = Path(entry.path)
    try:
        relative.encode()
        if entry.is_symlink():
            yield Leftover(path, SkippedError("skipped: a symbolic link"))
        elif entry.is_dir():
            yield from walk(path, f"{relative}/")
        elif entry.is_file():
            yield LocalFile(path, relative)
        else:
            yield Leftover(path, SkippedError("skipped: neither a file nor a directory"))
    except UnicodeEncodeError:
        yield Leftover(path, SkippedError("skipped: the name is not valid UTF-8, and keys are"))
    except OSError as error:
        yield Leftover(path, error)
