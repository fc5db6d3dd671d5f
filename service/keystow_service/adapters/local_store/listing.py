"""Names on the disk in the order of their bytes, read one directory at a time and only where a wanted name can be.

In names "/" is a byte like any other, so "a-b", "a/b" and "a0" stand in this order, and a directory is put among its
neighbours as its name with the "/". A directory that only continues a long segment (paths.py) adds its entries to
those of its parent.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    name: str  # from the root on; a directory's ends in "/"
    path: str = field(compare=False)


def names(root: Path, prefix: str, start_after: str) -> Iterator[tuple[str, str]]:
    """Names that start with ``prefix`` and sort after ``start_after``, with their paths. Blocks.

    Raises OSError, and ValueError for an unsafe prefix.
    """
    selection = _Selection(prefix, start_after)
    parent = prefix[: prefix.rfind("/") + 1]
    path = root / relative_path(parent[:-1]) if parent else root
    levels = [_entries(str(path), parent, selection)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif entry.name.endswith("/"):
            levels.append(_entries(entry.path, entry.name, selection))
        else:
            yield entry.name, entry.path


def _entries(path: str, stem: str, selection: _Selection) -> Iterator[_Entry]:
    return iter(sorted(_unsorted(path, stem, selection)))


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
                    yield _Entry(name, entry.path)
            elif name.endswith(MARK):
                if selection.reaches(name.removesuffix(MARK)):
                    yield from _unsorted(entry.path, name.removesuffix(MARK), selection)
            elif selection.reaches(f"{name}/"):
                yield _Entry(f"{name}/", entry.path)
