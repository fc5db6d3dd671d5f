"""Where everything is in a stored object, and how its segments are grouped into parts. Arithmetic only.

    header 4,096 | FLOE header 74 | full segments ... | last segment, always short | footer 112

Every length but the number of segments is fixed. So there is one stored size for each plaintext size and the other way
round, and a range of plaintext maps to a range of stored bytes without reading anything first.
"""

from dataclasses import dataclass

from keystow_service.envelope import floe
from keystow_service.errors import ObjectTooLargeError, ObjectTruncatedError
from keystow_service.model import GIB, MIB

HEADER_LENGTH = 4096
FLOE_HEADER_LENGTH = floe.HEADER_LENGTH
FRONT_LENGTH = HEADER_LENGTH + FLOE_HEADER_LENGTH
FOOTER_LENGTH = 112

# What damaged objects have in common; no reader can do more than say so.
RESTORE = "Restore it from an earlier version in the bucket or from another copy."


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes and offsets, in bytes. ``size`` and ``offset`` are of plaintext, ``stored_...`` of what is stored.

    The segment length is a field so that tests can have many segments in few bytes; version 1 has one: V1.
    """

    segment: int  # plaintext bytes of a full segment

    @property
    def sealed_segment(self) -> int:
        """Stored bytes of a full segment."""
        return self.segment + floe.SEGMENT_OVERHEAD

    @property
    def floe_parameters(self) -> floe.Parameters:
        return floe.Parameters(encrypted_segment_length=self.sealed_segment)

    def segments(self, size: int) -> int:
        """How many segments an object has: the full ones, and a last one that is short and may be empty."""
        return size // self.segment + 1

    def segment_at(self, offset: int) -> int:
        """The index of the segment that holds the byte at ``offset``."""
        return offset // self.segment

    def stored_offset(self, index: int) -> int:
        """Where segment ``index`` begins."""
        return FRONT_LENGTH + index * self.sealed_segment

    def sealed_length(self, size: int, index: int) -> int:
        """Stored bytes of segment ``index`` of an object of ``size``."""
        full, rest = divmod(size, self.segment)
        return self.sealed_segment if index < full else rest + floe.SEGMENT_OVERHEAD

    def footer_offset(self, size: int) -> int:
        """Where the footer of an object of ``size`` begins."""
        return FRONT_LENGTH + size + self.segments(size) * floe.SEGMENT_OVERHEAD

    def stored_size(self, size: int) -> int:
        """Stored bytes of an object of ``size``."""
        return self.footer_offset(size) + FOOTER_LENGTH

    def plaintext_size(self, stored_size: int) -> int:
        """The only size that gives ``stored_size``. Raises ObjectTruncatedError where none does."""
        full, rest = divmod(stored_size - FRONT_LENGTH - FOOTER_LENGTH, self.sealed_segment)
        if full < 0 or rest < floe.SEGMENT_OVERHEAD:
            raise ObjectTruncatedError(f"The stored object has a length that no whole object has. {RESTORE}")
        return full * self.segment + rest - floe.SEGMENT_OVERHEAD


V1 = Layout(segment=MIB)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MAX_PARTS = 10_000
_MIN_SEGMENTS = 8  # 8 MiB: every part but the last passes S3's minimum of 5 MiB
_MAX_SEGMENTS = 128
_PARTS_PER_STEP = 1_000
MIN_PART_SIZE = _MIN_SEGMENTS * V1.sealed_segment  # bytes of every part but the last, at least
_STEPS = 3  # 8, 16, 32, then 64 segments a part
_MAX_SEGMENTS_UNDECLARED = 400 * GIB // MIB

MAX_SIZE = _MAX_PARTS * _MAX_SEGMENTS * V1.segment  # 1.2 TiB
MAX_UNDECLARED_SIZE = _MAX_SEGMENTS_UNDECLARED * V1.segment


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How many full segments each part of an upload holds; the last one holds what is left, and the footer.

    ``size`` is the object's, where it was declared before the upload began. Raises ObjectTooLargeError.
    """

    layout: Layout
    size: int | None

    def __post_init__(self) -> None:
        if self.size is not None and self._segments_for(self.size) > _MAX_SEGMENTS:
            raise ObjectTooLargeError(f"An object has at most {MAX_SIZE} bytes. Store the data as several objects.")

    @property
    def limit(self) -> int:
        """The size at which the upload must end."""
        return _MAX_SEGMENTS_UNDECLARED * self.layout.segment if self.size is None else self.size

    def segments_in(self, part_number: int) -> int:
        """Full segments of part ``part_number`` (1, 2, ...), when it is not the last."""
        if self.size is None:
            return _MIN_SEGMENTS << min((part_number - 1) // _PARTS_PER_STEP, _STEPS)
        return self._segments_for(self.size)

    def _segments_for(self, size: int) -> int:
        """The fewest segments a part, at least 8, with which 10,000 parts hold ``size``."""
        return max(_MIN_SEGMENTS, -(-size // (_MAX_PARTS * self.layout.segment)))
