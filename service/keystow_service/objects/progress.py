"""How far an upload has become durable, told as tokens to go on from there; only ever the newest counts."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from keystow_service.envelope.resume_token import ResumeState, TokenSealer
from keystow_service.envelope.tally import Tally
from keystow_service.errors import UploadExpiredError
from keystow_service.keys.held_key import HeldKey

# S3 knows only when an upload began, not when it was last used; the reaper takes what is a day older.
UPLOAD_LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Progress:
    """``persisted_size`` bytes of plaintext survive; ``resume_token`` continues after them until ``expire_time``."""

    persisted_size: int
    resume_token: bytes = field(repr=False)
    expire_time: datetime


class LatestProgress:
    """From the one who stores to the one who tells: what is not told in time is replaced by what is newer."""

    def __init__(self) -> None:
        self._latest: Progress | None = None
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def persisted_size(self) -> int:
        """Bytes of plaintext that are known to survive."""
        return self._latest.persisted_size if self._latest is not None else 0

    def publish(self, progress: Progress) -> None:
        """Tell this from now on."""
        self._latest = progress
        self._changed.set()

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        self._changed.set()

    async def news(self) -> AsyncGenerator[Progress, None]:
        """The newest each time, as long as there is news."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._closed:
                return
            if self._latest is not None:
                yield self._latest


class ResumePoints:
    """Follows one stream's parts: a part counts once it and all before it are durable."""

    def __init__(self, front: bytes, held: HeldKey, expire_time: datetime, latest: LatestProgress) -> None:
        """``front`` is the object's. Nothing is durable before ``begin``."""
        self._sealer = TokenSealer(front, held.data_key.plaintext, os.urandom)
        self._held = held
        self._expire_time = expire_time
        self._latest = latest
        self._ends: deque[Tally] = deque()  # of the parts handed over, in order
        self._durable: dict[int, tuple[str, int]] = {}

    def begin(self, state: ResumeState) -> None:
        """Go on from here; the first token."""
        self._state = state
        self._announce()

    def handing_over(self, end: Tally) -> None:
        """The next part goes to the store; ``end`` is of all segments up to its end."""
        self._ends.append(end)

    def durable(self, number: int, etag: str, size: int) -> None:
        """A part has arrived (a PartObserver). The last one is no point to resume at: it comes with the commit."""
        self._durable[number] = etag, size
        moved = False
        while self._ends and (part := self._durable.pop(self._state.parts.count + 1, None)) is not None:
            self._state = replace(self._state, tally=self._ends.popleft(), parts=self._state.parts.after(*part))
            moved = True
        if moved:
            self._announce()

    def _announce(self) -> None:
        """Publish where the upload stands, unless its key may not be used just now."""
        if self._held.confirmed():
            token = self._sealer.seal(self._state)
            self._latest.publish(Progress(self._state.tally.size, token, self._expire_time))


def require_time(begun: datetime, now: datetime) -> None:
    """Raises UploadExpiredError once the time of an upload that began then is over."""
    if now >= begun + UPLOAD_LIFETIME:
        raise UploadExpiredError(
            f"An upload must end within {UPLOAD_LIFETIME.days} days of its beginning. Begin again."
        )
