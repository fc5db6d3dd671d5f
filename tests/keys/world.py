"""Leases under a fake clock, on a real keyring whose answers can be held up or lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from clock import FakeClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import LocalKeyring, open_local_keyring
from keystow_service.adapters.local_store import open_local_store
from keystow_service.errors import KeystowError
from keystow_service.keys.data_keys import DataKeys, KeyObservers
from keystow_service.keys.health import KeyHealthBook
from keystow_service.keys.lease import LeasePolicy
from keystow_service.model import DataCenter, DataKey, KeyArn, KeyDescription, KeyManagement, KeyState, Tenant, TenantId
from keystow_service.ports import EncryptionContext, Site

REFRESH, BOUND = 30.0, 60.0
REGION = "us-east-1"

_T = TypeVar("_T")


class Gate:
    """In front of a real keyring: counts the requests, and can hold them up or lose them on the way."""

    def __init__(self, keyring: LocalKeyring) -> None:
        self._keyring = keyring
        self.generated = 0
        self.unwrapped = 0
        self.lost: KeystowError | None = None
        self.not_unwrapped: KeystowError | None = None
        self.not_described: KeystowError | None = None
        self.transitioning = False
        self.after_answer: Callable[[], Awaitable[None]] | None = None

    async def _pass(self, request: Awaitable[_T]) -> _T:
        if self.lost is not None:
            error = self.lost
            await asyncio.gather(request, return_exceptions=True)
            raise error
        answer = await request
        if self.after_answer is not None:
            await self.after_answer()
        return answer

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        self.generated += 1
        return await self._pass(self._keyring.generate_data_key(arn, context))

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        self.unwrapped += 1
        if self.not_unwrapped is not None:
            raise self.not_unwrapped
        return await self._pass(self._keyring.unwrap(arn, wrapped, context))

    async def describe(self, arn: KeyArn) -> KeyDescription:
        if self.not_described is not None:
            raise self.not_described
        described = await self._keyring.describe(arn)
        return replace(described, state=KeyState.UNAVAILABLE, transitioning=True) if self.transitioning else described


class World:
    """Two tenants on one key, and everything a test turns."""

    def __init__(self, gate: Gate, admin: KeyringAdmin, arn: KeyArn, clock: FakeClock, site: Site) -> None:
        self.gate, self.admin, self.arn, self.clock = gate, admin, arn, clock
        self.health = KeyHealthBook(clock, lambda *_: None)
        self.sites = {"us": site}
        self.keys = self.data_keys()
        self.acme, self.globex = self._tenant("acme"), self._tenant("globex")

    def data_keys(self, policy: LeasePolicy | None = None, observers: KeyObservers | None = None) -> DataKeys:
        """Leases of a process that has just started."""
        return DataKeys(self.sites, "test", self.clock, policy or LeasePolicy(REFRESH, BOUND), observers or self.health)

    def _tenant(self, name: str) -> Tenant:
        return Tenant(TenantId(name), name, KeyManagement.SELF, self.arn, "us", datetime(2026, 1, 1, tzinfo=UTC))


async def settled() -> None:
    """Let background renewals run to their end: until no task but this one is left."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A keyring with one enabled key that serves both tenants."""
    clock = FakeClock()
    paths = tmp_path / "keyring.json", tmp_path / "root.key"
    admin = KeyringAdmin(*paths, clock)
    arn = admin.create(REGION, tenants=["acme", "globex"]).arn
    gate = Gate(open_local_keyring(*paths, clock))
    async with open_local_store(tmp_path / "store") as store:
        site = Site(DataCenter("us", "US", REGION), store, gate, arn)
        world = World(gate, admin, arn, clock, site)
        yield world
        await world.keys.aclose()


def flipped(wrapped: bytes) -> bytes:
    """Damage to one bit."""
    return wrapped[:-1] + bytes([wrapped[-1] ^ 1])
