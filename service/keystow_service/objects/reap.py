"""The reaper's pass over a store: removes the unfinished uploads that nobody can go on with any more.

An upload's time is over UPLOAD_LIFETIME after its beginning: from then on its tokens are refused and its streams stop
(progress.py). It is removed a day later, because S3 knows only when an upload began, not when it was last used, and
tells that by a clock of its own. No key is asked for: whether one may be used has no bearing on what is removed.

Passes may run anywhere, in any number, at any time: what they remove has no other use, and twice does no harm.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from keystow_service.errors import KeystowError
from keystow_service.objects.names import ALL_OBJECTS, owner_of
from keystow_service.objects.progress import UPLOAD_LIFETIME
from keystow_service.ports import Clock, ObjectStore, UnfinishedUpload

_MARGIN = timedelta(days=1)
# keystow is younger. Who says of an upload that it began before does not know when it began.
_NONE_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)


class Fate(Enum):
    """What has become of an unfinished upload."""

    KEPT = "kept"  # its time is not over
    UNDATED = "undated"  # kept, because the time of its beginning cannot be true
    DUE = "due"  # its time is over, but nothing was to be removed
    REMOVED = "removed"
    FAILED = "failed"  # it could not be removed


@dataclass(frozen=True, slots=True)
class Finding:
    """One unfinished upload. ``failure`` says why it FAILED."""

    upload: UnfinishedUpload
    fate: Fate
    failure: KeystowError | None = None


class ReapUploads:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, store: ObjectStore, *, dry_run: bool = False) -> AsyncGenerator[Finding, None]:
        """Every unfinished upload of keystow's in the store; those whose time is over have been removed.

        What cannot be removed does not end the pass. Raises Store… errors where uploads cannot be listed.
        """
        async with aclosing(store.unfinished(ALL_OBJECTS)) as uploads:
            async for upload in uploads:
                if upload.name and owner_of(upload.name) is None:
                    continue  # something else is putting it there
                fate = self._fate(upload)
                if fate is Fate.DUE and not dry_run:
                    yield await _remove(store, upload)
                else:
                    yield Finding(upload, fate)

    def _fate(self, upload: UnfinishedUpload) -> Fate:
        if upload.dead:
            return Fate.DUE
        if upload.begun < _NONE_BEFORE:
            return Fate.UNDATED
        return Fate.DUE if self._clock.now() - upload.begun > UPLOAD_LIFETIME + _MARGIN else Fate.KEPT


async def _remove(store: ObjectStore, upload: UnfinishedUpload) -> Finding:
    try:
        await store.discard(upload.name, upload.id)
    except KeystowError as error:
        return Finding(upload, Fate.FAILED, error)
    return Finding(upload, Fate.REMOVED)
