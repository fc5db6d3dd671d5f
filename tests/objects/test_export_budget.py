"""What an export remembers of its objects is memory, and counts as such."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clock import FakeClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.adapters.local_store import open_local_store
from keystow_service.envelope.checkpoint import ExportPosition
from keystow_service.errors import OverloadedError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.health import KeyHealthBook
from keystow_service.keys.held_key import KeyInUse
from keystow_service.keys.lease import LeasePolicy
from keystow_service.model import ANONYMOUS, MIB, DataCenter, KeyManagement, ObjectKey, Tenant, TenantId
from keystow_service.objects.budget import BufferBudget
from keystow_service.objects.export.command import ArchiveFormat, ErrorPolicy, ExportCommand, Keys
from keystow_service.objects.export.pieces import Failed
from keystow_service.objects.export.run import ExportPolicy, ExportRun, buffers
from keystow_service.objects.export.selection import Selected
from keystow_service.objects.opening import ObjectOpening
from keystow_service.ports import Site

REGION = "us-east-1"
ACME = TenantId("acme")
POLICY = ExportPolicy(checkpoint_objects=1000, checkpoint_bytes=MIB, blocks_in_flight=1)
KEYS = tuple(ObjectKey(f"missing/{number}") for number in range(100))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[ObjectOpening, Tenant]]:
    """A real store, which is empty, and a tenant there."""
    clock = FakeClock()
    paths = tmp_path / "keyring.json", tmp_path / "root.key"
    arn = KeyringAdmin(*paths, clock).create(REGION, tenants=[ACME]).arn
    async with open_local_store(tmp_path / "store") as store:
        sites = {"us": Site(DataCenter("us", "US", REGION), store, open_local_keyring(*paths, clock), arn)}
        keys = DataKeys(sites, "test", clock, LeasePolicy(), KeyHealthBook(clock, lambda *_: None))
        yield (
            ObjectOpening(sites, keys),
            Tenant(ACME, "", KeyManagement.SELF, arn, "us", datetime(2026, 1, 1, tzinfo=UTC)),
        )
        await keys.aclose()


async def _selected() -> AsyncGenerator[Selected, None]:
    for key in KEYS:
        yield Selected(key, key, listed=False)


async def test_an_archive_whose_index_outgrows_the_budget_is_refused(place: tuple[ObjectOpening, Tenant]) -> None:
    """A zip archive's manifest comes at its end: where it no longer fits the memory, the export ends, OVERLOADED."""
    opening, tenant = place
    command = ExportCommand(ANONYMOUS, ACME, Keys(KEYS), ArchiveFormat.ZIP, ErrorPolicy.CONTINUE)
    budget = BufferBudget(buffers(POLICY) // 2 + 4096, 0)
    told: list[object] = []

    async def export(run: ExportRun) -> None:
        async with aclosing(run.objects(_selected())) as pieces:
            async for piece in pieces:
                told.append(piece)  # noqa: PERF401 - what came before the error counts

    async with budget.reserve(buffers(POLICY)) as reservation:
        run = ExportRun(opening, POLICY, tenant, command, ExportPosition(), KeyInUse(), reservation)
        with pytest.raises(OverloadedError):
            await export(run)
    assert all(isinstance(piece, Failed) for piece in told)
    assert 0 < len(told) < len(KEYS)
