"""The commit of a Put that is slow or whose answer is lost: under the lease, like everything else."""

import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clock import FakeClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.adapters.local_store import LocalStore, open_local_store
from keystow_service.adapters.registry import open_registry
from keystow_service.errors import KmsKeyDisabledError, ObjectNotFoundError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.health import KeyHealthBook
from keystow_service.keys.lease import LeasePolicy
from keystow_service.model import (
    ANONYMOUS,
    GIB,
    DataCenter,
    KeyManagement,
    ObjectInfo,
    ObjectKey,
    Tenant,
    TenantId,
    UploadId,
)
from keystow_service.objects.budget import BufferBudget
from keystow_service.objects.command import Chunk, Finish, PutCommand
from keystow_service.objects.leaving import Leaving
from keystow_service.objects.names import object_name
from keystow_service.objects.opening import ObjectOpening
from keystow_service.objects.put import PutObject
from keystow_service.objects.standing import RepeatedPut
from keystow_service.objects.transfer import PutPolicy, Transfer
from keystow_service.ports import OutcomeUnknown, Permit, Site, StoredObject, Upload, WriteCondition, always

REGION = "us-east-1"
ACME = TenantId("acme")
KEY = ObjectKey("k")
DATA = b"data"


class LossyUpload:
    """An upload whose first commit takes its time, and may be lost on the way there."""

    def __init__(self, upload: Upload, meanwhile: Callable[[], object], *, lost: bool) -> None:
        self._upload = upload
        self._meanwhile: Callable[[], object] | None = meanwhile
        self._lost = lost

    async def write(self, part: bytearray) -> None:
        await self._upload.write(part)

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        if self._meanwhile is not None:
            self._meanwhile()
            self._meanwhile = None
            if self._lost:
                raise OutcomeUnknown
        return await self._upload.commit(last, permit)

    async def abort(self) -> None:
        await self._upload.abort()


class LossyStore(LocalStore):
    """A local store with such uploads."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)
    lost = True

    def begin(self, name: str, condition: WriteCondition) -> Upload:
        return LossyUpload(super().begin(name, condition), self.meanwhile, lost=self.lost)


@dataclasses.dataclass
class World:
    """One tenant, and what a test turns."""

    put: PutObject
    store: LossyStore
    clock: FakeClock
    disable_key: Callable[[], object]

    def __post_init__(self) -> None:
        self._command = PutCommand(ANONYMOUS, ACME, KEY, UploadId(str(uuid.uuid4())))

    async def put_object(self, meanwhile: Callable[[], object] = lambda: None) -> ObjectInfo:
        """The same each time, with something happening while the content comes."""
        return await self.put(self._command, _content(meanwhile))


async def _content(meanwhile: Callable[[], object]) -> AsyncIterator[Chunk | Finish]:
    yield Chunk(0, DATA)
    meanwhile()
    yield Finish(len(DATA))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A real store, keyring and registry."""
    clock = FakeClock()
    paths = tmp_path / "keyring.json", tmp_path / "root.key"
    admin = KeyringAdmin(*paths, clock)
    arn = admin.create(REGION, tenants=[ACME]).arn
    keyring = open_local_keyring(*paths, clock)
    async with (
        open_local_store(tmp_path / "store") as store,
        open_registry(f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}") as registry,
    ):
        lossy = LossyStore(**{name.lstrip("_"): value for name, value in vars(store).items()})
        await registry.add(Tenant(ACME, "", KeyManagement.SELF, arn, "us", datetime(2026, 1, 1, tzinfo=UTC)))
        sites = {"us": Site(DataCenter("us", "US", REGION), lossy, keyring, arn)}
        keys = DataKeys(sites, "test", clock, LeasePolicy(), KeyHealthBook(clock, lambda *_: None))
        repeated = RepeatedPut(ObjectOpening(sites, keys))
        policy = PutPolicy("test", max_object_size=GIB, parts_in_flight=2, commit_pause=0)
        leaving = Leaving()
        transfer = Transfer(repeated, leaving, clock, policy)
        put = PutObject(registry, sites, keys, repeated, BufferBudget(GIB, 0), clock, transfer, leaving, policy)
        yield World(put, lossy, clock, lambda: admin.disable(arn))
        await leaving.aclose()
        await keys.aclose()


async def test_a_lost_commit_is_tried_again(world: World) -> None:
    """The object does not stand, so the commit is repeated, and the Put succeeds."""
    info = await world.put_object()
    assert (await world.store.head(object_name(ACME, KEY))).etag == info.version_id


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "slow"])
async def test_no_commit_under_a_disabled_key(world: World, *, lost: bool) -> None:
    """The key is disabled while an answer or the last parts are waited for past the bound: nothing is stored."""

    def meanwhile() -> None:
        world.disable_key()
        world.clock.advance(60)

    world.store.meanwhile, world.store.lost = meanwhile, lost
    with pytest.raises(KmsKeyDisabledError):
        await world.put_object()
    with pytest.raises(ObjectNotFoundError):
        await world.store.head(object_name(ACME, KEY))


async def test_no_answer_to_a_repeated_put_under_a_disabled_key(world: World) -> None:
    """The object stands, and the key is disabled while the content comes again past the bound: that is told."""
    await world.put_object()

    def meanwhile() -> None:
        world.disable_key()
        world.clock.advance(60)

    with pytest.raises(KmsKeyDisabledError):
        await world.put_object(meanwhile)
