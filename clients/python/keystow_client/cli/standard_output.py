"""Standard output as what an archive is written to."""

import os
from io import FileIO, UnsupportedOperation


class StandardOutput(FileIO):
    """Somebody else has opened it, and loses nothing by that: it does not get shorter than it was."""

    def __init__(self) -> None:
        """It stays open."""
        super().__init__(1, "w", closefd=False)
        self._least = os.fstat(1).st_size

    def truncate(self, size: int | None = None, /) -> int:
        """Raises UnsupportedOperation where what was there before would go."""
        wanted = self.tell() if size is None else size
        if wanted < self._least:
            raise UnsupportedOperation("truncate")
        return super().truncate(wanted)
