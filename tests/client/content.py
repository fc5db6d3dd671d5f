"""Bytes to store, and a look at what a directory holds."""

import random
from pathlib import Path


def noise(size: int, seed: int = 0) -> bytes:
    """The same random bytes each time."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - test data


def names(directory: Path) -> list[str]:
    """What a directory holds."""
    return sorted(path.name for path in directory.iterdir())
