"""What one pass over a whole object adds up: its size, its CRC32C and the segment chain.

The writer keeps one for the footer, a whole read keeps one to compare. A resumed upload seals some positions twice
under one key, so a stale attempt of a segment verifies on its own; the chain holds the tag of every segment, in order,
and so tells the mixture from the object that was committed. Small and immutable: it is all that a writer must remember
to go on elsewhere.
"""

import hashlib
from dataclasses import dataclass

from keystow_service.envelope.crc32c import combine


@dataclass(frozen=True, slots=True)
class Tally:
    """The sums after the segments so far."""

    size: int = 0
    crc32c: int = 0
    chain: bytes = bytes(32)

    def after(self, length: int, crc32c: int, tag: bytes) -> "Tally":
        """With the next segment: its plaintext's length in bytes and CRC32C, and its GCM tag."""
        return Tally(
            size=self.size + length,
            crc32c=combine(self.crc32c, crc32c, length),
            chain=hashlib.sha256(self.chain + tag).digest(),
        )
