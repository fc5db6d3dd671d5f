"""What every object store keeps to with uploads that outlive their writers: the promises of ports.ResumableUpload.

A store joins as with ObjectStoreContract.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta

import pytest

from contract.store_place import NAME, Place, content, parts, store
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import StoreUnavailableError, UploadExpiredError, UploadSupersededError, WriteConflictError
from keystow_service.objects.leaving import Leaving
from keystow_service.ports import (
    Absent,
    ConditionFailed,
    Matches,
    ObjectStore,
    Permit,
    ResumableUpload,
    StoredObject,
    UnfinishedUpload,
    WriteCondition,
    always,
)

_ABSENT = Absent()
_OTHER_NAME = "objects/globex/_mail!"


class Client:
    """Whoever wants one object stored: its parts, and of the upload what is left when a writer is gone."""

    def __init__(
        self, place: Place, count: int, *, seed: int = 0, name: str = NAME, condition: WriteCondition = _ABSENT
    ) -> None:
        """``count`` parts, the last a short one."""
        self.data = content(place.part_size * (count - 1) + 1000, seed)
        self.upload_id = ""
        self._parts = parts(place, self.data)
        self._name = name
        self._condition = condition
        self._durable: dict[int, tuple[str, int]] = {}
        self._changed = asyncio.Event()

    async def begin(self, store: ObjectStore) -> ResumableUpload:
        """A new upload."""
        upload = await store.begin_resumable(self._name, self._condition, self._hear)
        self.upload_id = upload.id
        return upload

    async def resume(self, store: ObjectStore, chain: PartChain, upload_id: str = "") -> ResumableUpload:
        """The same upload after the chain's parts, or another one."""
        return await store.resume(self._name, self._condition, upload_id or self.upload_id, chain, self._hear)

    async def write(self, upload: ResumableUpload, numbers: range) -> None:
        """Parts by their numbers, from 1."""
        for number in numbers:
            await upload.write(bytearray(self._parts[number - 1]))

    async def commit(self, upload: ResumableUpload, permit: Permit = always) -> StoredObject:
        """With the last part."""
        return await upload.commit(bytearray(self._parts[-1]), permit)

    async def interrupted(self, store: ObjectStore, count: int) -> PartChain:
        """Begin, write so many parts, and go when they are durable; their chain."""
        upload = await self.begin(store)
        await self.write(upload, range(1, count + 1))
        chain = await self.chain(count)
        await upload.stop()
        return chain

    async def finish(self, upload: ResumableUpload, written: int) -> StoredObject:
        """Write what follows the first ``written`` parts, and commit."""
        await self.write(upload, range(written + 1, len(self._parts)))
        return await self.commit(upload)

    async def chain(self, count: int) -> PartChain:
        """Of the first ``count`` parts, once they are durable."""
        chain = PartChain()
        for number in range(1, count + 1):
            await self.arrived(number)
            chain = chain.after(*self._durable[number])
        return chain

    async def arrived(self, number: int) -> None:
        """Return once this part is durable."""
        while number not in self._durable:
            self._changed.clear()
            await self._changed.wait()

    def _hear(self, number: int, etag: str, size: int) -> None:
        self._durable[number] = etag, size
        self._changed.set()


async def listed(store: ObjectStore, prefix: str = "objects/") -> Sequence[UnfinishedUpload]:
    """The unfinished uploads."""
    async with aclosing(store.unfinished(prefix)) as uploads:
        return [upload async for upload in uploads]


class ResumableUploadContract:
    """Each test gets a place of its own."""

    # --- Going on ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("written", [0, 1, 2])
    async def test_another_process_goes_on(self, place: Place, written: int) -> None:
        """An upload whose writer has gone is continued after its durable parts, and is one object, byte for byte."""
        client = Client(place, 3)
        chain = await client.interrupted(place.store, written)
        assert place.contents() == {}
        async with place.another() as elsewhere:
            stored = await client.finish(await client.resume(elsewhere, chain), written)
            assert (stored.name, stored.size) == (NAME, len(client.data))
        assert place.contents() == {NAME: client.data}
        assert place.unfinished() == []
        assert (await place.store.head(NAME)).etag == stored.etag

    async def test_an_object_of_one_part(self, place: Place) -> None:
        """An upload may be committed with its first part."""
        client = Client(place, 1)
        await client.commit(await client.begin(place.store))
        assert place.contents() == {NAME: client.data}
        assert place.unfinished() == []

    async def test_parts_may_arrive_in_any_order(self, place: Place) -> None:
        """Each part's number, ETag and size are told; together, in order of their numbers, they are the chain."""
        client, count = Client(place, place.parts_in_flight), place.parts_in_flight - 1
        gate = place.hold_parts()
        upload = await client.begin(place.store)
        await client.write(upload, range(1, count + 1))
        await gate.until(count)
        gate.open()
        chain = await client.chain(count)
        await upload.stop()
        async with place.another() as elsewhere:
            await client.finish(await client.resume(elsewhere, chain), count)
        assert place.contents() == {NAME: client.data}

    async def test_going_on_from_an_older_point(self, place: Place) -> None:
        """What stands after the parts that a writer was given is not its own: it writes that again, otherwise."""
        before, after = Client(place, 4, seed=1), Client(place, 4, seed=2)
        await before.interrupted(place.store, 3)
        upload = await after.resume(place.store, await before.chain(1), before.upload_id)
        await after.finish(upload, 1)
        assert place.contents() == {NAME: before.data[: place.part_size] + after.data[place.part_size :]}
        assert place.unfinished() == []

    async def test_stopping_in_the_middle_of_a_part(self, place: Place) -> None:
        """Parts that were on their way when their writer went are written again by the next one."""
        client = Client(place, 4)
        chain = await client.interrupted(place.store, 1)
        gate = place.hold_parts()
        upload = await client.resume(place.store, chain)
        await client.write(upload, range(2, 4))
        await gate.until(2)
        stopping = asyncio.create_task(upload.stop())
        gate.open()
        await stopping
        async with place.another() as elsewhere:
            await client.finish(await client.resume(elsewhere, chain), 1)
        assert place.contents() == {NAME: client.data}

    # --- Parts that are no longer the same --------------------------------------------------------------------------

    async def test_chains_of_other_parts(self, place: Place) -> None:
        """Another ETag, size or number of parts than the store has is refused, and the upload stays as it was."""
        client = Client(place, 3)
        chain = await client.interrupted(place.store, 2)
        one = await client.chain(1)
        for wrong in (
            one.after("0" * 32, place.part_size),
            one.after('"d41d8cd98f00b204e9800998ecf8427e-2"', place.part_size),
            PartChain(2, one.digest),
            PartChain(1, chain.digest),
            chain.after("0" * 32, 1000),
        ):
            with pytest.raises(UploadSupersededError):
                await client.resume(place.store, wrong)
        await client.finish(await client.resume(place.store, chain), 2)
        assert place.contents() == {NAME: client.data}

    async def test_parts_that_were_written_again(self, place: Place) -> None:
        """A chain whose last part another writer has replaced is refused, though the sizes are the same."""
        first, second = Client(place, 3, seed=1), Client(place, 3, seed=2)
        chain = await first.interrupted(place.store, 2)
        upload = await second.resume(place.store, await first.chain(1), first.upload_id)
        await second.write(upload, range(2, 3))
        await second.arrived(2)
        await upload.stop()
        with pytest.raises(UploadSupersededError):
            await first.resume(place.store, chain)

    async def test_two_writers_are_never_mixed(self, place: Place) -> None:
        """Of two that go on from one point with other bytes, side by side, one or none commits, and whole."""
        first, second = Client(place, 4, seed=1), Client(place, 4, seed=2)
        chain = await first.interrupted(place.store, 1)
        refusals: tuple[type[Exception], ...] = (
            UploadSupersededError,
            UploadExpiredError,
            ConditionFailed,
            WriteConflictError,
        )
        if not place.profile.gone_upload:
            refusals = (*refusals, StoreUnavailableError)

        async def end(client: Client, elsewhere: ObjectStore) -> bool:
            try:
                upload = await client.resume(elsewhere, chain, first.upload_id)
            except UploadExpiredError:  # the other one has committed already
                return False
            try:
                await client.finish(upload, 1)
            except refusals:
                return False
            finally:
                await upload.stop()
            return True

        async with place.another() as elsewhere:
            ends = await asyncio.gather(end(first, place.store), end(second, elsewhere))
        common = first.data[: place.part_size]
        whole = [common + client.data[place.part_size :] for client in (first, second)]
        committed = [data for data, ended in zip(whole, ends, strict=True) if ended]
        assert len(committed) <= 1
        assert list(place.contents().values()) == committed

    async def test_another_writer_commits_just_before(self, place: Place) -> None:
        """Of two whose parts have all arrived, the later one is not told that its bytes are stored: they are not.

        S3 answers the second Complete of an upload as it did the first, whatever parts that names. A store may refuse
        the earlier one, too.
        """
        before, late, early = (Client(place, 3, seed=seed) for seed in range(3))
        chain = await before.interrupted(place.store, 1)
        refusals = (UploadSupersededError, UploadExpiredError, ConditionFailed, WriteConflictError)
        stored = {}
        async with place.another() as elsewhere:
            late_upload = await late.resume(place.store, chain, before.upload_id)
            early_upload = await early.resume(elsewhere, chain, before.upload_id)

            async def commit_early() -> None:
                with suppress(UploadSupersededError):
                    await early.finish(early_upload, 1)
                    stored[NAME] = before.data[: place.part_size] + early.data[place.part_size :]

            await late.write(late_upload, range(2, 3))
            with pytest.raises(refusals):
                await late.commit(late_upload, commit_early)
            await late_upload.stop()
            await early_upload.stop()
        assert place.contents() == stored

    # --- The end of an upload ---------------------------------------------------------------------------------------

    async def test_conditions_hold_at_the_commit(self, place: Place) -> None:
        """What was stored under the name after the upload began stays, and the upload's writer is told."""
        absent = Client(place, 2)
        upload = await absent.begin(place.store)
        await absent.write(upload, range(1, 2))
        standing = await store(place, NAME, b"standing")
        with pytest.raises(ConditionFailed):
            await absent.commit(upload)
        assert place.contents() == {NAME: b"standing"}
        if not place.profile.complete_if_match:
            return
        for replaced in (True, False):
            over = Client(place, 2, condition=Matches(standing.etag))
            upload = await over.begin(place.store)
            await over.write(upload, range(1, 2))
            if replaced:
                standing = await store(place, NAME, b"newer", Matches(standing.etag))
                with pytest.raises(ConditionFailed):
                    await over.commit(upload)
            else:
                await over.commit(upload)
            assert place.contents() == {NAME: b"newer" if replaced else over.data}

    async def test_after_a_failed_condition_the_upload_stays(self, place: Place) -> None:
        """A commit that was refused takes nothing away: once the name is free, another process commits."""
        client = Client(place, 2)
        chain = await client.interrupted(place.store, 1)
        standing = await store(place, NAME, b"standing")
        upload = await client.resume(place.store, chain)
        with pytest.raises(ConditionFailed):
            await client.commit(upload)
        await upload.stop()
        await place.store.delete(NAME, etag=standing.etag)
        async with place.another() as elsewhere:
            await client.commit(await client.resume(elsewhere, chain))
        assert place.contents() == {NAME: client.data}

    async def test_a_committed_upload_is_gone(self, place: Place) -> None:
        """Nobody goes on with it, also when its object has been deleted; discarding it keeps the object."""
        client = Client(place, 2)
        chain = await client.interrupted(place.store, 1)
        await client.finish(await client.resume(place.store, chain), 1)
        for known in (PartChain(), chain):
            with pytest.raises(UploadExpiredError):
                await client.resume(place.store, known)
        await place.store.discard(NAME, client.upload_id)
        assert place.contents() == {NAME: client.data}
        await place.store.delete(NAME)
        with pytest.raises(UploadExpiredError):
            await client.resume(place.store, PartChain())
        assert place.contents() == {}

    async def test_a_discarded_upload_is_gone(self, place: Place) -> None:
        """By any process; nothing of it stays, a second time does no harm, and another of its name is left alone."""
        client, neighbour = Client(place, 2, seed=1), Client(place, 2, seed=2)
        chain = await client.interrupted(place.store, 1)
        chain_of_neighbour = await neighbour.interrupted(place.store, 1)
        async with place.another() as elsewhere:
            for _ in range(2):
                await elsewhere.discard(NAME, client.upload_id)
        with pytest.raises(UploadExpiredError):
            await client.resume(place.store, chain)
        await neighbour.finish(await neighbour.resume(place.store, chain_of_neighbour), 1)
        assert place.contents() == {NAME: neighbour.data}
        assert place.unfinished() == []

    async def test_cancelled_while_it_begins(self, place: Place) -> None:
        """Whoever is gone before the upload has an id leaves none, though the store begins it after all."""
        gate = place.hold_beginning()
        beginning = asyncio.create_task(Leaving().begin(place.store, NAME, Absent(), lambda *_: None))
        await gate.until(1)
        beginning.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        await place.settled()
        assert place.unfinished() == []

    async def test_discarding_ends_a_writer(self, place: Place) -> None:
        """It commits nothing."""
        client = Client(place, 2)
        upload = await client.begin(place.store)
        await client.write(upload, range(1, 2))
        await client.chain(1)
        await place.store.discard(NAME, client.upload_id)
        with pytest.raises(UploadExpiredError if place.profile.gone_upload else StoreUnavailableError):
            await client.commit(upload)
        await upload.stop()
        assert place.contents() == {}
        assert place.unfinished() == []

    # --- What the reaper sees ---------------------------------------------------------------------------------------

    async def test_unfinished_uploads_are_listed(self, place: Place) -> None:
        """With name, id and the time at which they began, also while they are written to; committed ones are not."""
        stopped, running, done = Client(place, 2), Client(place, 2, name=_OTHER_NAME), Client(place, 1)
        before = datetime.now(UTC) - timedelta(minutes=1)
        await stopped.interrupted(place.store, 1)
        upload = await running.begin(place.store)
        await done.commit(await done.begin(place.store))
        async with place.another() as elsewhere:
            found = {upload.id: upload for upload in await listed(elsewhere)}
        assert {id_: upload.name for id_, upload in found.items()} == {
            stopped.upload_id: NAME,
            running.upload_id: _OTHER_NAME,
        }
        for upload_found in found.values():
            assert before < upload_found.begun < datetime.now(UTC) + timedelta(minutes=1)
            assert not upload_found.dead
        await upload.stop()

    async def test_listing_by_prefix(self, place: Place) -> None:
        """Only uploads of names that start with it."""
        clients = [Client(place, 1), Client(place, 1, name=_OTHER_NAME), Client(place, 1, name="objects/globe/_x!")]
        for client in clients:
            await client.begin(place.store)
        for prefix, count in [("objects/", 3), ("objects/globe", 2), ("objects/globe/", 1), ("other/", 0)]:
            assert len(await listed(place.store, prefix)) == count

    async def test_an_upload_began_once(self, place: Place) -> None:
        """Its time is that of its beginning, however often it is continued since."""
        client = Client(place, 2)
        chain = await client.interrupted(place.store, 1)
        begun = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
        place.backdate(client.upload_id, begun)
        upload = await client.resume(place.store, chain)
        [found] = await listed(place.store)
        assert found == UnfinishedUpload(NAME, client.upload_id, begun)
        await client.commit(upload)
        assert place.contents() == {NAME: client.data}
