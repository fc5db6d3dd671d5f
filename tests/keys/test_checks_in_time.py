"""Whoever checks or registers a key while KMS is silent is told so before the deadline of the call."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from keys.trying import ACME, Trying
from keystow_service.acting import acting
from keystow_service.adapters.clock import SystemClock
from keystow_service.errors import KmsThrottledError, KmsUnavailableError, TenantNotFoundError
from keystow_service.keys.onboarding import RegisterCommand, RegisterTenant
from keystow_service.keys.repeated import RepeatedKeyService, RepeatPolicy
from keystow_service.model import KeyManagement
from servers.kms.faults import Fault


@contextmanager
def deadline() -> Iterator[None]:
    """Of a call that is made inside of the block."""
    time = asyncio.get_running_loop().time() + 0.6
    token = acting.set(replace(acting.get(), deadline=time))
    try:
        yield
    finally:
        acting.reset(token)


async def with_the_providers_key(trying: Trying, _: str) -> object:
    """RegisterTenant for a tenant that brings no key."""
    register = RegisterTenant(trying.sites, trying.registry, trying.checks(), "tests", SystemClock())
    return await register(RegisterCommand(ACME, "", KeyManagement.PROVIDER, "", "us"))


CALLS: dict[str, Callable[[Trying, str], Awaitable[object]]] = {
    "CheckKey": lambda trying, arn: trying.check(arn),
    "CheckKey that waits": lambda trying, arn: trying.check(arn, wait=300),
    "RegisterTenant": lambda trying, arn: trying.register("acme", arn),
    "RegisterTenant with the provider's key": with_the_providers_key,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("silent", [None, "GenerateDataKey", "Decrypt"])
async def test_a_silent_kms_is_told_in_time(trying: Trying, call: str, silent: str | None) -> None:
    """Whatever it is that KMS does not answer; and nothing is registered."""
    key = trying.kms.create_key("acme")
    trying.kms.faults.hold(silent)
    with deadline(), pytest.raises(KmsUnavailableError, match="before the deadline"):
        async with asyncio.timeout(60):
            await CALLS[call](trying, key.arn)
    trying.kms.faults.end()
    with pytest.raises(TenantNotFoundError):
        await trying.registry.get(ACME)


async def test_what_kms_said_last_is_told(trying: Trying) -> None:
    """Of a request that is repeated until there is no time left."""
    site = trying.sites["us"]
    patient = RepeatedKeyService(site.key_service, RepeatPolicy(attempts=1_000), lambda: 0.5)
    trying.sites["us"] = replace(site, key_service=patient)
    key = trying.kms.create_key("acme")
    trying.kms.faults.fail_always(Fault("ThrottlingException"), "Decrypt")
    with deadline(), pytest.raises(KmsThrottledError) as told:
        async with asyncio.timeout(60):
            await trying.check(key.arn)
    assert told.value.retry_after
