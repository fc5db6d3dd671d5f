"""How far a long command is, on a terminal's last line."""

import sys
import time
from types import TracebackType
from typing import Self

_INTERVAL = 0.5  # seconds
_MB = 1_000_000


class ProgressLine:
    """Says nothing where standard error is no terminal, and nothing of what is done at once."""

    def __init__(self, total: int) -> None:
        """``total`` in bytes."""
        self._total = total
        self._done = 0
        self._told_at = time.monotonic()
        self._visible = False
        self._terminal = sys.stderr.isatty()

    def add(self, size: int) -> None:
        """So many more bytes are done."""
        self._done += size
        if self._terminal and time.monotonic() - self._told_at >= _INTERVAL:
            self._told_at = time.monotonic()
            self._visible = True
            sys.stderr.write(f"\r\x1b[K{self._done // _MB} of {self._total // _MB} MB")
            sys.stderr.flush()

    def clear(self) -> None:
        """Before something else is written."""
        if self._visible:
            self._visible = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave nothing behind."""
        self.clear()
