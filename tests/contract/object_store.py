"""What every object store keeps to: the promises of ports.ObjectStore and ports.Upload, shown on a real one.

A store joins by a fixture ``place`` and a subclass of ObjectStoreContract. Each place also looks at its objects without
the store (boto3, plain files), so that a store cannot confirm itself.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, timedelta

import pytest

from contract.store_place import NAME, Place, begun, content, outcome, parts, store
from keystow_service.errors import KmsKeyDisabledError, ObjectChangedError, ObjectNotFoundError
from keystow_service.ports import (
    Absent,
    ConditionFailed,
    Matches,
    Upload,
    WriteCondition,
)

_RIVALS = 6


class ObjectStoreContract:
    """Each test gets a place of its own."""

    # --- What is stored is what is read -----------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [1, 4096, 100_000])
    async def test_single_part_round_trip(self, place: Place, size: int) -> None:
        """An object of one part is stored byte for byte, and described truly."""
        data = content(size)
        stored = await store(place, NAME, data)
        assert place.contents() == {NAME: data}
        assert stored.name == NAME
        assert stored.size == size
        read = await place.store.read(NAME, 0, size, etag=stored.etag)
        assert read.data == data
        assert read.object.etag == stored.etag
        assert place.unfinished() == []

    @pytest.mark.parametrize("extra", [1, 77_777])
    async def test_multipart_round_trip(self, place: Place, extra: int) -> None:
        """An object of more parts than may be in flight is stored byte for byte, its parts in order."""
        data = content(place.part_size * (place.parts_in_flight + 1) + extra)
        stored = await store(place, NAME, data)
        assert place.contents() == {NAME: data}
        assert stored.size == len(data)
        assert (await place.store.read(NAME, 0, len(data))).data == data
        assert place.unfinished() == []

    async def test_parts_that_overtake_each_other(self, place: Place) -> None:
        """Parts that are let go all at once still stand in the order in which they were written."""
        data = content(place.part_size * place.parts_in_flight + 5)
        *first, last = parts(place, data)
        upload = place.store.begin(NAME, Absent())
        gate = place.hold_parts()
        writing = asyncio.create_task(self._write_all(upload, first))
        await gate.until(len(first))
        gate.open()
        await writing
        await upload.commit(last)
        assert place.contents() == {NAME: data}

    async def test_commit_head_and_list_agree(self, place: Place) -> None:
        """Commit, head, read and list describe an object alike, with a time in UTC."""
        stored = await store(place, NAME, content(5000))
        head = await place.store.head(NAME)
        (listed,) = await place.store.list("objects/", limit=10)
        read = await place.store.read(NAME, 0, 1)
        assert head == listed == read.object
        assert (stored.name, stored.etag, stored.size) == (head.name, head.etag, head.size)
        assert stored.modified.tzinfo is UTC
        assert head.modified.tzinfo is UTC
        assert abs(stored.modified - head.modified) < timedelta(hours=1)

    # --- Nothing is visible before its commit, and nothing is left after an abort -----------------------------------

    async def test_invisible_until_commit(self, place: Place) -> None:
        """Parts that are written are no object: not for head, read, list, nor for others."""
        upload, last = await begun(place, NAME, Absent(), content(place.part_size * 2 + 1))
        assert place.contents() == {}
        assert await place.store.list("", limit=10) == []
        with pytest.raises(ObjectNotFoundError):
            await place.store.head(NAME)
        with pytest.raises(ObjectNotFoundError):
            await place.store.read(NAME, 0, 1)
        await upload.commit(last)
        assert list(place.contents()) == [NAME]

    @pytest.mark.parametrize("count", [0, 1], ids=["one part", "parts"])
    async def test_permission_is_asked_for_last(self, place: Place, count: int) -> None:
        """A commit asks when every part has arrived, however long that takes; refused, it leaves nothing."""
        asked = []

        async def refuse() -> None:
            asked.append(gate.held)
            raise KmsKeyDisabledError("disabled")

        *first, last = parts(place, content(place.part_size * count + 1000))
        upload = place.store.begin(NAME, Absent())
        gate = place.hold_parts()
        for part in first:
            await upload.write(part)
        committing = asyncio.create_task(upload.commit(last, refuse))
        await gate.until(count)
        assert asked == [] or not count
        gate.open()
        with pytest.raises(KmsKeyDisabledError):
            await committing
        assert len(asked) == 1
        await upload.abort()
        assert place.contents() == {}
        assert place.unfinished() == []

    async def test_old_content_stays_until_commit(self, place: Place) -> None:
        """While it is being overwritten, an object reads as before; afterwards as the new one."""
        old, new = content(9000, 1), content(9001, 2)
        standing = await store(place, NAME, old)
        upload, last = await begun(place, NAME, Matches(standing.etag), new)
        assert place.contents() == {NAME: old}
        written = await upload.commit(last)
        assert place.contents() == {NAME: new}
        assert written.etag != standing.etag

    async def test_begin_alone_leaves_nothing(self, place: Place) -> None:
        """An upload without a part has sent nothing, and can be aborted."""
        upload = place.store.begin(NAME, Absent())
        assert place.unfinished() == []
        await upload.abort()
        assert place.contents() == {}

    async def test_abort_leaves_nothing(self, place: Place) -> None:
        """An abort removes the parts; a second one does no harm."""
        upload, _ = await begun(place, NAME, Absent(), content(place.part_size * 3 + 1))
        assert len(place.unfinished()) == 1
        await upload.abort()
        await upload.abort()
        assert place.unfinished() == []
        assert place.contents() == {}

    async def test_abort_after_commit_keeps_the_object(self, place: Place) -> None:
        """An abort after the commit removes nothing, of either kind of upload."""
        for name, size in (("objects/acme/_small!", 10), ("objects/acme/_large!", place.part_size + 10)):
            upload, last = await begun(place, name, Absent(), content(size))
            await upload.commit(last)
            await upload.abort()
        assert sorted(place.contents()) == ["objects/acme/_large!", "objects/acme/_small!"]
        assert place.unfinished() == []

    async def test_abort_with_parts_in_flight(self, place: Place) -> None:
        """An abort while parts are on their way leaves nothing, even when they go on afterwards."""
        upload = place.store.begin(NAME, Absent())
        in_flight = parts(place, content(place.part_size * (place.parts_in_flight - 1)))
        gate = place.hold_parts()
        await self._write_all(upload, in_flight)
        await gate.until(len(in_flight))
        aborting = asyncio.create_task(upload.abort())
        gate.open()
        await aborting
        assert place.unfinished() == []
        assert place.contents() == {}

    async def test_cancelled_in_the_middle_of_a_write(self, place: Place) -> None:
        """A writer that is cancelled while it waits for room leaves nothing once it has aborted."""
        upload = place.store.begin(NAME, Absent())
        gate = place.hold_parts()
        data = content(place.part_size * (place.parts_in_flight + 3))
        writing = asyncio.create_task(self._write_all(upload, parts(place, data)))
        await gate.until(place.parts_in_flight)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        aborting = asyncio.create_task(upload.abort())
        gate.open()
        await aborting
        assert place.unfinished() == []
        assert place.contents() == {}

    async def test_write_waits_for_room(self, place: Place) -> None:
        """With the permitted number of parts in flight, write does not return: this is the backpressure."""
        upload = place.store.begin(NAME, Absent())
        data = content(place.part_size * (place.parts_in_flight + 3))
        *first, last = parts(place, data)
        gate = place.hold_parts()
        written: list[int] = []
        writing = asyncio.create_task(self._write_all(upload, first, written))
        await gate.until(place.parts_in_flight)
        for _ in range(1000):
            await asyncio.sleep(0)  # whatever could go on now, does
        assert len(written) == place.parts_in_flight - 1
        assert gate.held == place.parts_in_flight
        gate.open()
        await writing
        await upload.commit(last)
        assert place.contents() == {NAME: data}

    # --- Conditions -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", ["one part", "more parts"])
    async def test_absent_refuses_an_object(self, place: Place, size: str) -> None:
        """Absent over an object fails, and the object stays."""
        old = content(100, 1)
        await store(place, NAME, old)
        upload, last = await begun(place, NAME, Absent(), content(_size(place, size), 2))
        with pytest.raises(ConditionFailed):
            await upload.commit(last)
        await upload.abort()
        assert place.contents() == {NAME: old}
        assert place.unfinished() == []

    @pytest.mark.parametrize("size", ["one part", "more parts"])
    async def test_matches_replaces_its_content_only(self, place: Place, size: str) -> None:
        """Matches replaces the content with its ETag; with an ETag of the past it fails, and what stands stays."""
        _needs_condition(place, size)
        first = await store(place, NAME, content(100, 1))
        new = content(_size(place, size), 2)
        second = await store(place, NAME, new, Matches(first.etag))
        upload, last = await begun(place, NAME, Matches(first.etag), content(_size(place, size), 3))
        with pytest.raises(ConditionFailed):
            await upload.commit(last)
        await upload.abort()
        assert place.contents() == {NAME: new}
        assert (await place.store.head(NAME)).etag == second.etag
        assert place.unfinished() == []

    @pytest.mark.parametrize("size", ["one part", "more parts"])
    async def test_matches_needs_an_object(self, place: Place, size: str) -> None:
        """Matches where nothing stands fails: a deleted object is never brought back."""
        _needs_condition(place, size)
        gone = await store(place, NAME, content(100, 1))
        upload, last = await begun(place, NAME, Matches(gone.etag), content(_size(place, size), 2))
        await place.store.delete(NAME)
        with pytest.raises(ConditionFailed):
            await upload.commit(last)
        await upload.abort()
        assert place.contents() == {}
        assert place.unfinished() == []

    @pytest.mark.parametrize("size", ["one part", "more parts"])
    async def test_concurrent_absent_commits(self, place: Place, size: str) -> None:
        """Of concurrent commits with Absent exactly one wins, and its content is what stands."""
        await self._race(place, Absent(), size)

    @pytest.mark.parametrize("size", ["one part", "more parts"])
    async def test_concurrent_matches_commits(self, place: Place, size: str) -> None:
        """Of concurrent commits over the same content exactly one wins, and its content is what stands."""
        _needs_condition(place, size)
        standing = await store(place, NAME, content(100))
        await self._race(place, Matches(standing.etag), size)

    async def test_commit_against_delete(self, place: Place) -> None:
        """Of a commit and a delete that are both tied to one content, at least one fails, and none is undone."""
        standing = await store(place, NAME, content(100))
        upload, last = await begun(place, NAME, Matches(standing.etag), content(100, 1))
        deleting = asyncio.create_task(place.store.delete(NAME, etag=standing.etag))
        committed = await outcome(place, upload, last)
        try:
            await deleting
        except ConditionFailed:
            assert committed is not None
        else:
            assert committed is None
        assert place.contents() == ({} if committed is None else {NAME: content(100, 1)})

    # --- Reading ----------------------------------------------------------------------------------------------------

    async def test_ranges(self, place: Place) -> None:
        """A read gives exactly its range, shorter only at the end, and nothing at or past it."""
        data = content(10_000)
        stored = await store(place, NAME, data)
        for start, length in [(0, 1), (0, 10_000), (0, 99_999), (1, 9_998), (9_999, 1), (9_999, 5), (5_000, 10_000)]:
            read = await place.store.read(NAME, start, length)
            assert read.data == data[start : start + length]
            assert read.object.size == 10_000
        for start in (10_000, 10_001, 1 << 40):
            read = await place.store.read(NAME, start, 7, etag=stored.etag)
            assert read.data == b""
            assert (read.object.etag, read.object.size) == (stored.etag, 10_000)

    async def test_pinned_read_of_a_replaced_object(self, place: Place) -> None:
        """A read tied to an ETag fails once another content stands there, also past its end; untied it gives that."""
        old = await store(place, NAME, content(100, 1))
        new = await store(place, NAME, content(100, 2), Matches(old.etag))
        for start in (0, 50, 100, 5000):
            with pytest.raises(ObjectChangedError):
                await place.store.read(NAME, start, 10, etag=old.etag)
        assert (await place.store.read(NAME, 0, 100)).data == content(100, 2)
        assert (await place.store.read(NAME, 0, 100, etag=new.etag)).data == content(100, 2)

    async def test_same_bytes_again_are_the_objects_own_content(self, place: Place) -> None:
        """After delete and a new Put, an ETag of the past finds the old bytes or none at all."""
        old = await store(place, NAME, content(100, 1))
        await place.store.delete(NAME)
        await store(place, NAME, content(100, 2))
        with pytest.raises(ObjectChangedError):
            await place.store.read(NAME, 0, 100, etag=old.etag)

    async def test_missing_object(self, place: Place) -> None:
        """Head, read and delete of what is not there say so, also beside and below other objects."""
        await store(place, "objects/acme/_a!", b"x")
        for name in (NAME, "objects/acme/_a", "objects/acme/_a!!", "objects/acme", "objects/acme/_a!/_b!"):
            with pytest.raises(ObjectNotFoundError):
                await place.store.head(name)
            with pytest.raises(ObjectNotFoundError):
                await place.store.read(name, 0, 1)
            with pytest.raises(ObjectNotFoundError):
                await place.store.delete(name)

    async def test_foreign_empty_object(self, place: Place) -> None:
        """An object of no bytes, which something else has put there, is described, read as nothing, and deleted."""
        place.plant("objects/acme/_empty!", b"")
        stored = await place.store.head("objects/acme/_empty!")
        assert stored.size == 0
        assert (await place.store.read("objects/acme/_empty!", 0, 100, etag=stored.etag)).data == b""
        assert await place.store.list("objects/", limit=2) == [stored]
        await place.store.delete("objects/acme/_empty!", etag=stored.etag)
        assert place.contents() == {}

    # --- Deleting ---------------------------------------------------------------------------------------------------

    async def test_delete(self, place: Place) -> None:
        """A deleted object is gone, its neighbours are not, and its name is free again."""
        for name in (NAME, "objects/acme/_mail/_2026/_outbox.eml!", "objects/acme/_mail!"):
            await store(place, name, b"x")
        await place.store.delete(NAME)
        assert sorted(place.contents()) == ["objects/acme/_mail!", "objects/acme/_mail/_2026/_outbox.eml!"]
        await store(place, NAME, b"again")
        assert place.contents()[NAME] == b"again"

    async def test_delete_of_one_content(self, place: Place) -> None:
        """A delete tied to an ETag removes that content, and fails over another."""
        old = await store(place, NAME, content(100, 1))
        new = await store(place, NAME, content(100, 2), Matches(old.etag))
        with pytest.raises(ConditionFailed):
            await place.store.delete(NAME, etag=old.etag)
        assert place.contents() == {NAME: content(100, 2)}
        await place.store.delete(NAME, etag=new.etag)
        assert place.contents() == {}

    # --- Listing ----------------------------------------------------------------------------------------------------

    async def test_list_in_the_order_of_bytes(self, place: Place) -> None:
        """List gives each name once, in byte order, for each prefix, start and limit."""
        names = _listable(place)
        for name in names:
            await store(place, name, b"x")
        assert sorted(place.contents()) == names
        prefixes = ["", "objects/", "objects/acme/", "objects/acme/_a", "objects/acme/_a/", "objects/acme/_l", "x"]
        prefixes += ["objects/acme/_" + "l" * 199, "objects/acme/_" + "l" * 250, "objects/acmf"]
        for prefix in prefixes:
            wanted = [name for name in names if name.startswith(prefix)]
            assert await _listed(place, prefix, limit=100) == wanted
            assert await _listed(place, prefix, limit=2) == wanted[:2]
            for start in ("objects/acme/_a/", "objects/acme/_a-", "a", "z", *names[::3]):
                after = [name for name in wanted if name > start]
                assert await _listed(place, prefix, limit=3, start_after=start) == after[:3]

    async def test_list_page_by_page(self, place: Place) -> None:
        """Pages joined give every name once; only the last has fewer than it was asked for."""
        names = _listable(place)
        for name in names:
            await store(place, name, b"x")
        pages: list[list[str]] = [await _listed(place, "", limit=4)]
        while len(pages[-1]) == 4:
            pages.append(await _listed(place, "", limit=4, start_after=pages[-1][-1]))
        assert [name for page in pages for name in page] == names

    # ----------------------------------------------------------------------------------------------------------------

    @staticmethod
    async def _write_all(upload: Upload, written_parts: Sequence[bytearray], written: list[int] | None = None) -> None:
        for number, part in enumerate(written_parts):
            await upload.write(part)
            if written is not None:
                written.append(number)

    @staticmethod
    async def _race(place: Place, condition: WriteCondition, size: str) -> None:
        datas = [content(_size(place, size), seed) for seed in range(10, 10 + _RIVALS)]
        rivals = [await begun(place, NAME, condition, data) for data in datas]
        outcomes = await asyncio.gather(*(outcome(place, upload, last) for upload, last in rivals))
        (winner,) = [index for index, stored in enumerate(outcomes) if stored is not None]
        won = outcomes[winner]
        assert won is not None
        assert place.contents() == {NAME: datas[winner]}
        assert (await place.store.head(NAME)).etag == won.etag
        assert place.unfinished() == []


_LISTED = [
    "objects/acme/_a!",
    "objects/acme/_a/_b!",
    "objects/acme/_a/_b/_c!",
    "objects/acme/_a-b!",
    "objects/acme/_a.b!",
    "objects/acme/_a%2Fb!",
    "objects/acme/_a0!",
    "objects/acme/_aa/_b!",
    "objects/acme/_a-/_b!",
    "objects/acme/_A!",
    "objects/acme/_~!",
    "objects/acme/_" + "l" * 198 + "!",  # 200 bytes: one piece on a disk
    "objects/acme/_" + "l" * 199 + "!",
    "objects/acme/_" + "l" * 199 + "/_m!",
    "objects/acme/_" + "l" * 250 + "-!",
    "objects/acme/_" + "l" * 250 + "/_m!",
    "objects/acme/_" + "l" * 250 + "..!",
    "objects/acme/_" + "l" * 199 + "..",
    "objects/acme/_" + "l" * 197 + "../_m!",
    "objects/acme/_" + "l" * 880 + "!",
    "objects/acme-/_a!",
    "objects/acme0/_a!",
    "other/_a!",
]


def _listable(place: Place) -> list[str]:
    """In order. Without what the place takes no name of."""
    longest = place.profile.longest_segment
    return sorted(name for name in _LISTED if longest is None or max(len(each) for each in name.split("/")) <= longest)


def _size(place: Place, size: str) -> int:
    return 5000 if size == "one part" else place.part_size + 5000


def _needs_condition(place: Place, size: str) -> None:
    if size == "more parts" and not place.profile.complete_if_match:
        pytest.skip("this server's CompleteMultipartUpload ignores If-Match")


async def _listed(place: Place, prefix: str, *, limit: int, start_after: str = "") -> list[str]:
    return [stored.name for stored in await place.store.list(prefix, start_after=start_after, limit=limit)]
