"""What an archive format puts around the bytes of its members."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MEMBER_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. ``crc32`` is of its bytes, for framings that need it before them."""

    name: str
    size: int
    modified: datetime
    crc32: int = 0


class Framing(Protocol):
    """One archive in the making: ``begin``, the member's bytes, ``end``, for each member in turn; then ``finish``."""

    @property
    def needs_crc32(self) -> bool:
        """Whether a member's CRC-32 must be known before it begins."""
        ...

    def begin(self, member: Member) -> bytes:
        """What comes before the member's bytes. Raises RequestInvalidError for a member too many."""
        ...

    def end(self, member: Member) -> bytes:
        """What comes after them."""
        ...

    def finish(self) -> bytes:
        """The end of the archive."""
        ...

    def held(self) -> int:
        """Bytes of memory that the members so far take up."""
        ...
