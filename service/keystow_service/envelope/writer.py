"""From plaintext to the parts of a stored object: seals each segment the moment it is full, straight into its part.

Pure and synchronous: whoever feeds it decides when, checks the lease, and sends the parts. A 1 MiB chunk that begins on
a segment boundary is sealed without any copy; all others are copied once, into the carry.
"""

import io
from collections.abc import Callable
from typing import TypeAlias

import google_crc32c

from keystow_service.envelope import derive, floe, header
from keystow_service.envelope.header import Core, Wrap
from keystow_service.envelope.layout import FOOTER_LENGTH, PartPlan
from keystow_service.envelope.reader import Front
from keystow_service.envelope.sealing import NONCE_LENGTH, Footer, Metadata, seal_footer, seal_metadata
from keystow_service.envelope.tally import Tally
from keystow_service.errors import ObjectTooLargeError, SizeMismatchError
from keystow_service.model import DataKey, KeyArn

Random: TypeAlias = Callable[[int], bytes]  # os.urandom: n bytes that never come again


class PartWriter:
    """One object on its way from chunks to parts.

    For each chunk::

        start = 0
        while start < len(chunk):
            if (part := writer.take_full_part()) is not None:
                send(part)
            start += writer.feed(chunk, start)

    and in the end ``finish``, which gives the last part. A full part is taken only when a further byte is there, so the
    last part is never empty, and an object of exactly one part is one part.

    What it holds between two segments is its tally, its part's number and that part: where no part is begun, another
    writer can go on from tally and number alone (continue_object).
    """

    def __init__(
        self,
        *,
        plan: PartPlan,
        front: bytes,
        encryptor: floe.Encryptor,
        footer_key: bytes,
        core: bytes,
        random: Random,
        tally: Tally,
        parts: int,
    ) -> None:
        """``front`` goes before the first segment. ``tally`` and ``parts`` are of what another writer has done.

        See begin_object for the rest.
        """
        self.front = front
        self._plan = plan
        self._layout = plan.layout
        self._unwritten_front = b"" if parts else front
        self._encryptor = encryptor
        self._footer_key = footer_key
        self._core = core
        self._random = random
        self._tally = tally
        self._part_number = parts + 1
        self._segments_left = plan.segments_in(self._part_number)
        self._part = bytearray()  # empty until its first segment is sealed
        self._used = 0
        # A BytesIO gives its bytes away without a copy, and google_crc32c takes nothing but bytes.
        self._carry = io.BytesIO()
        self._carried = 0

    @property
    def size(self) -> int:
        """Bytes of plaintext taken so far."""
        return self._tally.size + self._carried

    @property
    def tally(self) -> Tally:
        """Of the segments sealed: of all parts taken, until more is fed; after ``finish``, of the object."""
        return self._tally

    def feed(self, chunk: bytes, start: int = 0, *, crc32c: int | None = None) -> int:
        """Take bytes of ``chunk`` from ``start`` up to the end of the current segment; say how many.

        Seals at most one segment. ``crc32c`` is that of the whole chunk where it is known already; it saves a pass over
        the bytes. Raises SizeMismatchError past the declared size, ObjectTooLargeError past the limit without one.
        """
        if not self._segments_left:
            raise ValueError("the part is full: take it before feeding more")
        segment = self._layout.segment
        taken = min(len(chunk) - start, segment - self._carried)
        if self.size + taken > self._plan.limit:
            raise self._too_long()
        if taken == len(chunk) == segment:
            self._seal_full(chunk, crc32c)
            return taken
        self._carry.write(memoryview(chunk)[start : start + taken])
        self._carried += taken
        if self._carried == segment:
            self._carried = self._carry.seek(0)
            self._seal_full(self._carry.getvalue(), None)
        return taken

    def take_full_part(self) -> bytearray | None:
        """The current part if it is full; it belongs to the caller then."""
        if self._segments_left:
            return None
        part = self._close_part()
        self._part_number += 1
        self._segments_left = self._plan.segments_in(self._part_number)
        return part

    def finish(self, sha256: bytes | None) -> bytearray:
        """Seal the last segment and the footer: the last part. ``sha256`` is of the whole plaintext, if verified.

        Raises SizeMismatchError short of the declared size. The writer is of no use afterwards.
        """
        if self._plan.size not in (None, self.size):
            raise SizeMismatchError(
                f"The object ends after {self.size} bytes; its header declared {self._plan.size}. Send the rest."
            )
        if not self._part:
            self._open_part(len(self._unwritten_front) + self._carried + floe.SEGMENT_OVERHEAD + FOOTER_LENGTH)
        self._carry.truncate(self._carried)
        self._carried = 0
        self._seal(self._carry.getvalue(), None, final=True)
        tally = self._tally
        footer = Footer(size=tally.size, crc32c=tally.crc32c, chain=tally.chain, sha256=sha256)
        sealed = seal_footer(footer, self._footer_key, self._core, self._random(NONCE_LENGTH))
        self._next_bytes(FOOTER_LENGTH)[:] = sealed
        return self._close_part()

    def _seal_full(self, plaintext: bytes, crc32c: int | None) -> None:
        if not self._part:
            self._open_part(self._part_capacity())
        self._seal(plaintext, crc32c, final=False)
        self._segments_left -= 1

    def _seal(self, plaintext: bytes, crc32c: int | None, *, final: bool) -> None:
        index = self._layout.segment_at(self._tally.size)
        out = self._next_bytes(len(plaintext) + floe.SEGMENT_OVERHEAD)
        self._encryptor.seal_into(index, plaintext, self._random(floe.SEGMENT_IV_LENGTH), out, final=final)
        if crc32c is None:
            crc32c = google_crc32c.value(plaintext)
        self._tally = self._tally.after(len(plaintext), crc32c, bytes(out[-floe.TAG_LENGTH :]))

    def _part_capacity(self) -> int:
        """Room for the part's full segments and, should no further byte come, an empty segment and the footer."""
        full = self._plan.segments_in(self._part_number) * self._layout.sealed_segment
        capacity = len(self._unwritten_front) + full + floe.SEGMENT_OVERHEAD + FOOTER_LENGTH
        if self._plan.size is None:
            return capacity
        part_start = self._layout.stored_offset(self._layout.segment_at(self._tally.size)) - len(self._unwritten_front)
        return min(capacity, self._layout.stored_size(self._plan.size) - part_start)

    def _open_part(self, capacity: int) -> None:
        self._part = bytearray(capacity)
        self._used = 0
        self._next_bytes(len(self._unwritten_front))[:] = self._unwritten_front
        self._unwritten_front = b""

    def _next_bytes(self, length: int) -> memoryview:
        start = self._used
        self._used += length
        return memoryview(self._part)[start : self._used]

    def _close_part(self) -> bytearray:
        part, self._part = self._part, bytearray()
        del part[self._used :]
        return part

    def _too_long(self) -> SizeMismatchError | ObjectTooLargeError:
        limit = self._plan.limit
        if self._plan.size is None:
            return ObjectTooLargeError(f"The object passes {limit} bytes. Declare its size in its header.")
        return SizeMismatchError(f"The object goes on after the {limit} bytes that its header declared.")


def begin_object(
    *, core: Core, metadata: Metadata, data_key: DataKey, key_arn: KeyArn, plan: PartPlan, random: Random
) -> PartWriter:
    """Make an object's front and the writer for what follows.

    ``random`` is drawn from in this order: FLOE IV, metadata nonce, an IV for each segment, footer nonce.
    Raises RequestInvalidError naming the field that does not fit the header.
    """
    core_bytes = core.encode()
    wrap = Wrap(key_arn.text, data_key.wrapped).encode()
    floe_iv = random(floe.IV_LENGTH)
    metadata_key = derive.metadata_key(data_key.plaintext, floe_iv)
    sealed_metadata = seal_metadata(metadata, metadata_key, core_bytes, random(NONCE_LENGTH))
    encryptor = floe.Encryptor(plan.layout.floe_parameters, data_key.plaintext, derive.floe_aad(core_bytes), floe_iv)
    return PartWriter(
        plan=plan,
        front=header.encode(core_bytes, wrap, sealed_metadata) + encryptor.header,
        encryptor=encryptor,
        footer_key=derive.footer_key(data_key.plaintext, floe_iv),
        core=core_bytes,
        random=random,
        tally=Tally(),
        parts=0,
    )


def continue_object(
    *, front: Front, stored_front: bytes, data_key: bytes, plan: PartPlan, tally: Tally, parts: int, random: Random
) -> PartWriter:
    """The writer for what follows ``parts`` durable parts, whose segments add up to ``tally``.

    ``front`` is known to belong to ``data_key``; ``stored_front`` is the same as bytes. Every segment, also of a
    position that was sealed before, draws its own IV from ``random``.
    """
    core = front.header.core_bytes
    floe_iv = floe.iv_of(plan.layout.floe_parameters, front.floe_header)
    return PartWriter(
        plan=plan,
        front=stored_front,
        encryptor=floe.Encryptor(plan.layout.floe_parameters, data_key, derive.floe_aad(core), floe_iv),
        footer_key=derive.footer_key(data_key, floe_iv),
        core=core,
        random=random,
        tally=tally,
        parts=parts,
    )
