"""What the durable parts of one upload add up to: enough to tell, elsewhere and later, whether they are still the same.

Every attempt to seal a part draws fresh IVs, so a part that another stream has sent since has another ETag, and the
chain over all ETags tells.
"""

import hashlib
import struct
from dataclasses import dataclass

_PART = struct.Struct(">32sIQ")


@dataclass(frozen=True, slots=True)
class PartChain:
    """Parts 1 to ``count``."""

    count: int = 0
    digest: bytes = bytes(32)

    def after(self, etag: str, size: int) -> "PartChain":
        """With the next part: its ETag, opaque, and its stored bytes."""
        number = self.count + 1
        return PartChain(number, hashlib.sha256(_PART.pack(self.digest, number, size) + etag.encode()).digest())
