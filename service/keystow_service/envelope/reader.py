"""From stored bytes to plaintext: nothing leaves here that was not verified first.

The order that keeps the promise: ``read_front`` checks that the header names the object asked for, so that the data key
is only unwrapped for its own tenant; SegmentOpener checks that header and data key belong together; each segment is
then verified on its own, and bound to its position and to the end by the size.
"""

from dataclasses import dataclass

from keystow_service.envelope import derive, floe, header
from keystow_service.envelope.header import Header
from keystow_service.envelope.layout import FRONT_LENGTH, HEADER_LENGTH, RESTORE, V1, Layout
from keystow_service.envelope.sealing import Footer, Metadata, open_footer, open_metadata
from keystow_service.envelope.tally import Tally
from keystow_service.errors import ObjectHeaderInvalidError, ObjectTamperedError, ObjectTruncatedError
from keystow_service.model import ObjectKey, TenantId


@dataclass(frozen=True, slots=True)
class Front:
    """The first FRONT_LENGTH bytes of a stored object, taken apart. Nothing in it is authenticated yet."""

    header: Header
    floe_header: bytes


def read_front(stored: bytes, tenant_id: TenantId, key: ObjectKey) -> Front:
    """Take apart the front of what is stored in this object's place.

    Raises ObjectTruncatedError, ObjectHeaderInvalidError, ObjectFormatUnsupportedError; ObjectTamperedError if it is
    another object's.
    """
    if len(stored) != FRONT_LENGTH:
        raise ObjectTruncatedError(f"The stored object ends inside its header. {RESTORE}")
    parsed = header.parse(stored[:HEADER_LENGTH])
    if (parsed.core.tenant_id, parsed.core.key) != (tenant_id, key):
        # Never say whose: it may be another tenant's.
        raise ObjectTamperedError(f"Another object is stored in this object's place. {RESTORE}")
    return Front(parsed, stored[HEADER_LENGTH:])


class SegmentOpener:
    """Opens the pieces of one stored object, in any order.

    Raises ObjectHeaderInvalidError unless core, FLOE header and data key belong together.
    """

    def __init__(self, front: Front, data_key: bytes, size: int, layout: Layout = V1) -> None:
        """``size`` is the plaintext's, as the stored size gives it: true once the footer or last segment has opened."""
        self._layout = layout
        self._core = front.header.core_bytes
        self._sealed_metadata = front.header.sealed_metadata
        self.size = size
        try:
            self._decryptor = floe.Decryptor(
                layout.floe_parameters, data_key, derive.floe_aad(self._core), front.floe_header
            )
        except floe.FloeError:
            raise ObjectHeaderInvalidError(
                f"The stored object's header does not verify under its data key. {RESTORE}"
            ) from None
        floe_iv = self._decryptor.iv
        self._metadata_key = derive.metadata_key(data_key, floe_iv)
        self._footer_key = derive.footer_key(data_key, floe_iv)

    def metadata(self) -> Metadata:
        """Raises ObjectTamperedError."""
        return open_metadata(self._sealed_metadata, self._metadata_key, self._core)

    def footer(self, sealed: bytes) -> Footer:
        """Raises ObjectTamperedError; ObjectTruncatedError if it is the footer of another size."""
        footer = open_footer(sealed, self._footer_key, self._core)
        if footer.size != self.size:
            raise ObjectTruncatedError(
                f"The stored object holds {self.size} bytes, and {footer.size} were written. {RESTORE}"
            )
        return footer

    def segment(self, index: int, sealed: floe.Buffer) -> bytes:
        """The plaintext of segment ``index``. Raises ObjectTamperedError; ObjectTruncatedError for too few bytes."""
        if len(sealed) < self._layout.sealed_length(self.size, index):
            raise ObjectTruncatedError(f"The stored object ends inside segment {index}. {RESTORE}")
        final = index == self._layout.segments(self.size) - 1
        try:
            return self._decryptor.open(index, sealed, final=final)
        except floe.FloeError:
            raise ObjectTamperedError(
                f"Segment {index} of the stored object does not verify: it was altered, moved or cut. {RESTORE}"
            ) from None

    def check_whole(self, tally: Tally, footer: Footer) -> None:
        """After a read of all segments in order: are they the ones that were committed?

        Raises ObjectTamperedError for a segment of an interrupted attempt of the same upload.
        """
        if tally != Tally(footer.size, footer.crc32c, footer.chain):
            raise ObjectTamperedError(
                f"The stored object's segments are authentic, but not the ones that were committed. {RESTORE}"
            )
