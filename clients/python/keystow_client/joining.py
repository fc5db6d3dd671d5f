"""Continued exports for those who cannot take bytes back: pipes, and whoever iterates.

A continuation begins at a checkpoint, and repeats what was handed on after it. Objects may have changed since, so what
is repeated is not handed on again but compared, by its SHA-256: only if it is the same does the rest belong to it.
Holding bytes back until the next checkpoint instead would take as much memory as the largest object.
"""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from keystow_client.errors import AbortedError, Recovery
from keystow_client.export_models import ExportCheckpoint, ExportSummary
from keystow_client.export_stream import ExportPiece


@dataclass(frozen=True, slots=True)
class Start:
    """The bytes that follow begin at this offset of the archive: where the export begins, or the last checkpoint is."""

    position: int


async def joined(pieces: AsyncGenerator[Start | ExportPiece, None], position: int) -> AsyncGenerator[ExportPiece, None]:
    """The pieces with every byte from ``position`` on once. Raises AbortedError where that cannot be had."""
    handed_on = repeated = hashlib.sha256()  # of the bytes since the last checkpoint
    left = 0  # bytes to be repeated before new ones come
    async with aclosing(pieces):
        async for piece in pieces:
            match piece:
                case Start():
                    left, repeated = position - piece.position, hashlib.sha256()
                case bytes():
                    again, new = piece[:left], piece[left:]
                    if again:
                        left -= len(again)
                        repeated.update(again)
                        if not left and repeated.digest() != handed_on.digest():
                            raise _changed()
                    if new:
                        position += len(new)
                        handed_on.update(new)
                        yield new
                case ExportCheckpoint() | ExportSummary() if left:
                    raise _changed()
                case _:
                    if isinstance(piece, ExportCheckpoint):
                        handed_on = hashlib.sha256()
                    yield piece


def _changed() -> AbortedError:
    return AbortedError(
        "Objects changed while the export was interrupted: what follows does not belong to the bytes that were handed "
        "on already. Export again; to a file it would go on from its last checkpoint.",
        recovery=Recovery.RESTART,
    )
