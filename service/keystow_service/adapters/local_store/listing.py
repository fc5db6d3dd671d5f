"""Names on the disk in the order of their bytes, read one directory at a time and only where a wanted name can be.

In names "/" is a byte like any other, so "a-b", "a/b" and "a0" stand in this order, and a directory is put among its
neighbours as its name with the "/". A directory that only continues a long segment (paths.py) adds its entries to
those of its parent.

A directory may hold any number of objects, so its entries are taken some at a time: each time it is read through again,
and only the next ones in order are kept.
"""

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

from keystow_service.adapters.local_store.paths import MARK, relative_path


@dataclass(frozen=True, slots=True)
class _Selection:
    prefix: str
    start_after: str

    def takes(self, name: str) -> bool:
        return name.startswith(self.prefix) and name > self.start_after

    def reaches(self, stem: str) -> bool:
        """Whether a name that starts with ``stem`` may be taken."""
        return (stem.startswith(self.prefix) or self.prefix.startswith(stem)) and (
            stem > self.start_after or self.start_after.startswith(stem)
        )


_Entry: TypeAlias = tuple[str, str]  # its name from the root on, which ends in "/" for a directory; its path


def names(root: Path, prefix: str, start_after: str, *, batch: int) -> Iterator[tuple[str, str]]:
    """Names that start with ``prefix`` and sort after ``start_after``, with their paths. Blocks.

    Reads each directory once for every ``batch`` of its entries. Raises OSError, and ValueError for an unsafe prefix.
    """
    selection = _Selection(prefix, start_after)
    parent = prefix[: prefix.rfind("/") + 1]
    path = root / relative_path(parent[:-1]) if parent else root
    levels = [_entries(str(path), parent, selection, batch)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif entry[0].endswith("/"):
            levels.append(_entries(entry[1], entry[0], selection, batch))
        else:
            yield entry


def _entries(path: str, stem: str, selection: _Selection, batch: int) -> Iterator[_Entry]:
    """In order."""
    last = ""
    while True:
        rest = (entry for entry in _unsorted(path, stem, selection) if entry[0] > last)
        found = heapq.nsmallest(batch, rest, key=itemgetter(0))
        yield from found
        if len(found) < batch:
            return
        last = found[-1][0]


def _unsorted(path: str, stem: str, selection: _Selection) -> Iterator[_Entry]:
    """What is in a directory whose names start with ``stem``. One that vanishes meanwhile is empty."""
    try:
        directory = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with directory:
        for entry in directory:
            name = stem + entry.name.removeprefix(MARK)
            if entry.name.startswith("."):
                continue  # the store's own, or the file system's
            if not entry.is_dir(follow_symlinks=False):
                if selection.takes(name):
                    yield name, entry.path
            elif name.endswith(MARK):
                if selection.reaches(name.removesuffix(MARK)):
                    yield from _unsorted(entry.path, name.removesuffix(MARK), selection)
            elif selection.reaches(f"{name}/"):
                yield f"{name}/", entry.path
