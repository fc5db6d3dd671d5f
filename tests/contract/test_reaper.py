"""The reaper on each store: what is too old goes, all else stays, and only a store that does not list ends a pass."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clock import FakeClock
from contract.local_place import local_place
from contract.resumable_uploads import Client
from contract.s3_place import PREFIX, S3Place, s3_place
from contract.store_place import NAME, Place, store
from keystow_service.errors import StoreMisconfiguredError
from keystow_service.objects.reap import Fate, Finding, ReapUploads
from keystow_service.ports import ObjectStore
from servers.moto import MotoServer
from servers.s3_proxy import Answer

NOW = datetime.now(UTC).replace(microsecond=0)
LIMIT = timedelta(days=8)


@pytest.fixture(params=["local", "s3"])
async def place(
    request: pytest.FixtureRequest, moto: MotoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Place]:
    """An empty store of each kind."""
    async with local_place(tmp_path / "store") if request.param == "local" else s3_place(moto, monkeypatch) as made:
        yield made


@pytest.fixture
async def bucket(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Place]:
    """An empty bucket."""
    async with s3_place(moto, monkeypatch) as made:
        yield made


async def reap(store: ObjectStore, *, dry_run: bool = False) -> Sequence[Finding]:
    """One pass."""
    async with aclosing(ReapUploads(FakeClock(NOW))(store, dry_run=dry_run)) as findings:
        return [finding async for finding in findings]


def fates(findings: Sequence[Finding]) -> Mapping[str, Fate]:
    """By the ids of the uploads."""
    return {finding.upload.id: finding.fate for finding in findings}


async def unfinished(place: Place, age: timedelta, name: str = NAME) -> str:
    """The id of an upload with one part, of this age."""
    client = Client(place, 2, name=name)
    await client.interrupted(place.store, 1)
    place.backdate(client.upload_id, NOW - age)
    return client.upload_id


async def test_what_is_too_old_goes(place: Place) -> None:
    """An upload that began more than eight days ago is removed, of whatever tenant; younger ones and objects stay."""
    await store(place, NAME, b"object")
    old = [
        await unfinished(place, LIMIT + timedelta(seconds=1)),
        await unfinished(place, timedelta(days=90), "objects/globex/_mail!"),
    ]
    young = [await unfinished(place, LIMIT), await unfinished(place, timedelta(0))]
    assert fates(await reap(place.store)) == {**dict.fromkeys(old, Fate.REMOVED), **dict.fromkeys(young, Fate.KEPT)}
    assert fates(await reap(place.store)) == dict.fromkeys(young, Fate.KEPT)
    assert place.contents() == {NAME: b"object"}


async def test_what_stays_can_be_continued(place: Place) -> None:
    """An upload on its last day is whole after the pass, also while it is being written to."""
    client = Client(place, 3)
    chain = await client.interrupted(place.store, 1)
    place.backdate(client.upload_id, NOW - timedelta(days=7))
    upload = await client.resume(place.store, chain)
    await client.write(upload, range(2, 3))
    await reap(place.store)
    await client.commit(upload)
    assert place.contents() == {NAME: client.data}


async def test_dry_run(place: Place) -> None:
    """Says what a pass would remove, and removes nothing."""
    old, young = await unfinished(place, timedelta(days=9)), await unfinished(place, timedelta(days=1))
    before = sorted(place.unfinished())
    for _ in range(2):
        assert fates(await reap(place.store, dry_run=True)) == {old: Fate.DUE, young: Fate.KEPT}
    assert sorted(place.unfinished()) == before


async def test_passes_at_once(place: Place) -> None:
    """Replicas that meet the same uploads do no harm: all goes well for each of them, and everything old is gone."""
    for _ in range(3):
        await unfinished(place, timedelta(days=9))
    async with place.another() as second, place.another() as third:
        passes = await asyncio.gather(*(reap(each) for each in (place.store, second, third)))
    assert {finding.fate for findings in passes for finding in findings} == {Fate.REMOVED}
    assert place.unfinished() == []


async def test_times_that_cannot_be_true(place: Place) -> None:
    """An upload that began before there was keystow, as servers say that do not keep the time, is never removed."""
    client = Client(place, 2)
    await client.interrupted(place.store, 1)
    place.backdate(client.upload_id, datetime(2010, 11, 10, 20, 48, 33, tzinfo=UTC))
    assert fates(await reap(place.store)) == {client.upload_id: Fate.UNDATED}
    assert len(place.unfinished()) > 0


# --- S3 alone ---------------------------------------------------------------------------------------------------------


async def test_uploads_of_others_in_the_bucket(bucket: S3Place) -> None:
    """Nothing beside the deployment's prefix is touched, nor below it what has no name that keystow gives."""
    others = [NAME, "backups2/" + NAME, PREFIX + "other", PREFIX + "objects/acme/mail", PREFIX + "objects/acme/_mail"]
    for key in others:
        created = bucket.s3.create_multipart_upload(Bucket=bucket.bucket, Key=key)
        bucket.backdate(created["UploadId"], NOW - timedelta(days=30))
    ours = await unfinished(bucket, timedelta(days=30))
    assert fates(await reap(bucket.store)) == {ours: Fate.REMOVED}
    assert len(bucket.unfinished()) == len(others)


async def test_an_upload_that_cannot_be_removed(bucket: S3Place) -> None:
    """It is told, with the reason, and the pass goes on to the next."""
    uploads = [await unfinished(bucket, timedelta(days=9)) for _ in range(3)]
    bucket.proxy.plan("AbortMultipartUpload", None, Answer(403, "AccessDenied"))
    findings = await reap(bucket.store)
    assert sorted(fates(findings)) == sorted(uploads)
    [failed] = [finding for finding in findings if finding.fate is Fate.FAILED]
    assert isinstance(failed.failure, StoreMisconfiguredError)
    assert bucket.unfinished() == [failed.upload.id]


async def test_a_store_that_does_not_list(bucket: S3Place) -> None:
    """The pass ends with S3's refusal in our words."""
    bucket.proxy.always("ListMultipartUploads", Answer(403, "AccessDenied"))
    with pytest.raises(StoreMisconfiguredError):
        await reap(bucket.store)
