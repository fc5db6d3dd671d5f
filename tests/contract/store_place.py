"""Where an object store is shown: the store, its surroundings, and how the tests put objects there."""

import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from keystow_service.ports import Absent, ConditionFailed, ObjectStore, StoredObject, Upload, WriteCondition
from servers.gate import Gate

NAME = "objects/acme/_mail/_2026/_inbox.eml!"


@dataclass(frozen=True, slots=True)
class StoreProfile:
    """What a server does; what it does not is not shown on it, and its tests say so."""

    complete_if_match: bool = True  # a multipart commit holds to Matches
    gone_upload: bool = True  # a part of an upload that is gone is refused by name
    longest_segment: int | None = None  # bytes of a name between two "/", at most
    atomic: bool = True  # conditions hold between requests that come at once; if not, the proxy lines them up


class Place(Protocol):
    """A store with its surroundings."""

    store: ObjectStore
    profile: StoreProfile
    part_size: int
    parts_in_flight: int

    def contents(self) -> dict[str, bytes]:
        """Every visible object, seen without the store."""
        ...

    def unfinished(self) -> Sequence[str]:
        """What is there beside the objects, seen without the store."""
        ...

    def plant(self, name: str, data: bytes) -> None:
        """Put an object there without the store."""
        ...

    def hold_parts(self) -> Gate:
        """Have parts wait on their way. Called before an upload's first part."""
        ...

    def hold_beginning(self) -> Gate:
        """Have the beginning of the next upload wait on its way."""
        ...

    async def settled(self) -> None:
        """Return once all that the store was asked for has been carried out, or refused."""
        ...

    def another(self) -> AbstractAsyncContextManager[ObjectStore]:
        """The same store as another process has it."""
        ...

    def backdate(self, upload_id: str, begun: datetime) -> None:
        """Have the store know this of a resumable upload."""
        ...


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that no other seed gives."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - reproducible, not secret


def parts(place: Place, data: bytes) -> list[bytearray]:
    """The data in parts, the last of at least one byte."""
    return [bytearray(data[start : start + place.part_size]) for start in range(0, len(data), place.part_size)]


async def begun(place: Place, name: str, condition: WriteCondition, data: bytes) -> tuple[Upload, bytearray]:
    """An upload that lacks only its commit, and what to commit it with."""
    *first, last = parts(place, data)
    upload = place.store.begin(name, condition)
    for part in first:
        await upload.write(part)
    return upload, last


async def store(place: Place, name: str, data: bytes, condition: WriteCondition | None = None) -> StoredObject:
    """Store an object."""
    upload, last = await begun(place, name, condition or Absent(), data)
    return await upload.commit(last)


async def outcome(place: Place, upload: Upload, last: bytearray) -> StoredObject | None:
    """What a rival's commit gives: None if its condition failed. It cleans up after itself."""
    try:
        return await upload.commit(last)
    except ConditionFailed:
        return None
    finally:
        await upload.abort()
