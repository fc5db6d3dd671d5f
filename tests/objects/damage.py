"""What can happen to a stored file."""

from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


def flip(offset: int) -> Damage:
    """One bit, at an offset from the beginning or, negative, from the end."""

    def damage(file: Path) -> None:
        stored = bytearray(file.read_bytes())
        stored[offset] ^= 1
        file.write_bytes(stored)

    return damage
