"""What was seen of a chain by others: packed, because ten servers side by side see each other thirteen thousand times
a day each.

The promise: all of it is kept, for a rewritten chain may have been seen before and after; 49 bytes for each sight, and
12 more while its chain is checked.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keystow_service.adapters.audit.line import End

_DIGEST = 32  # bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody saw a chain that far. ``file`` and ``line`` say who."""

    end: End
    file: Path
    line: int


class Claims:
    """About one writer's chain. Those of one file are added in a row; nothing is added after the first question."""

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._files: list[Path] = []
        self._places, self._lines = array("I"), array("I")  # in which of the files, and where
        self._seqs, self._digests, self._final = array("Q"), bytearray(), bytearray()
        self._order: array[int] | None = None
        self._sorted = array("Q")

    def add(self, claim: Claim) -> None:
        """One more."""
        if not self._files or self._files[-1] != claim.file:
            self._files.append(claim.file)
        self._places.append(len(self._files) - 1)
        self._lines.append(claim.line)
        self._seqs.append(claim.end.seq)
        self._digests += bytes.fromhex(claim.end.hash)
        self._final.append(claim.end.final)

    def of(self, first: int, last: int | None = None) -> Iterator[Claim]:
        """Those about the lines ``first`` to ``last``, or to the end of all, in the order of lines."""
        order = self._in_order()
        stop = len(order) if last is None else bisect_right(self._sorted, last)
        return (self._claim(order[index]) for index in range(bisect_left(self._sorted, first), stop))

    def newest(self) -> Claim:
        """The one about the latest line. There must be one."""
        return self._claim(self._in_order()[-1])

    def _in_order(self) -> "array[int]":
        if self._order is None:
            self._order = array("I", sorted(range(len(self._seqs)), key=self._seqs.__getitem__))
            self._sorted = array("Q", (self._seqs[index] for index in self._order))
        return self._order

    def _claim(self, index: int) -> Claim:
        digest = self._digests[index * _DIGEST : (index + 1) * _DIGEST].hex()
        end = End(self._writer, self._seqs[index], digest, final=bool(self._final[index]))
        return Claim(end, self._files[self._places[index]], self._lines[index])
