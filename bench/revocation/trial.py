"""One trial: a tenant's backups, restores and exports run, the customer disables the key, and enables it again."""

import asyncio
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc

from keystow.v1.storage_pb2 import ExportRequest
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF, RegisterTenantRequest
from revocation import streams
from revocation.streams import BIG, Acknowledged
from revocation.world import DATA_CENTER, World, handed_out_at

_BIG_SIZE = 24 << 20  # bytes; some seconds at the pace of the streams
_SMALL_OBJECTS = 5
_TIMEOUT = 60.0  # seconds for what must come in the end
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from the switch, and what did not hold."""

    silent: bool  # KMS did not answer for the key any more, so that the bound alone ended the streams
    last_plaintext: float  # to the last plaintext of any stream that was handed to the transport; 0 if none was
    last_stored: float  # to the last acknowledged Put; 0 if none was
    last_taken: float  # to the last MiB that a running Put took, by when it was sent; 0 if none was
    resumed: float  # from enabling the key until Put, Get and Export worked
    problems: Sequence[str]


async def run_trial(world: World, tenant_id: str, bound: float, chance: random.Random, *, silent: bool) -> Outcome:
    """With a tenant and a key of its own. If ``silent``, KMS answers nothing for the key while it is disabled."""
    key = world.kms.create_key(tenant_id)
    await world.tenants.RegisterTenant(
        RegisterTenantRequest(
            tenant_id=tenant_id,
            key_management=KEY_MANAGEMENT_SELF,
            kms_key_arn=key.arn,
            data_center=DATA_CENTER,
            confirm_permanent=True,
        )
    )
    stored = Acknowledged()
    first = [(BIG, _BIG_SIZE), *((f"first/{number}", 1_000) for number in range(_SMALL_OBJECTS))]
    for name, size in first:
        stored[name] = chance.randbytes(size)
        await streams.put_whole(world.storage, tenant_id, name, stored[name])
    switched = asyncio.Event()
    running = [
        asyncio.create_task(client)
        for client in (
            streams.small_puts(world.storage, tenant_id, stored),
            streams.endless_put(world.storage, tenant_id),
            streams.gets(world.storage, tenant_id),
            streams.exports(world.storage, tenant_id),
            streams.slow_get(world.slow_storage, tenant_id),
            streams.unread_get(world.slow_storage, tenant_id, switched, bound + 2),
        )
    ]
    await asyncio.sleep(chance.uniform(0.5, 1 + bound))
    disabled_at = time.time()
    key.disable()
    gate = world.kms.faults.hold(key.arn) if silent else None
    switched.set()
    async with asyncio.timeout(_TIMEOUT):
        ends = await asyncio.gather(*running)
        ended = await _ended(world, tenant_id, 1 + len(first) + sum(end.calls for end in ends))
    expected = "KMS_UNAVAILABLE" if silent else "KMS_KEY_DISABLED"
    problems = [f"a stream ended with {end.reason}" for end in ends if end.reason != expected]
    handed_out = [at - disabled_at for call in ended if (at := handed_out_at(call)) is not None]
    finished = [
        _ended_at(call) - disabled_at
        for call in ended
        if call["method"] in ("Put", "PutSmall") and call["code"] == "OK"
    ]
    enabled_at = time.time()
    key.enable()
    if gate is not None:
        gate.open()
    async with asyncio.timeout(_TIMEOUT):
        await _working(world, tenant_id)
    resumed = time.time() - enabled_at
    problems += [
        f"{name} is not what was stored"
        for name, data in stored.items()
        if await streams.get_whole(world.storage, tenant_id, name) != data
    ]
    return Outcome(
        silent,
        last_plaintext=max([0.0, *handed_out]),
        last_stored=max([0.0, *finished]),
        last_taken=max([0.0, *(at - disabled_at for at in _taken(ends, ended))]),
        resumed=resumed,
        problems=problems,
    )


async def _ended(world: World, tenant_id: str, count: int) -> Sequence[Mapping[str, Any]]:
    """The log's lines of all the tenant's calls, of which there were so many."""
    while True:
        if len(calls := world.calls(tenant_id)) >= count:
            return calls
        await asyncio.sleep(_POLL)


def _taken(ends: Sequence[streams.End], ended: Sequence[Mapping[str, Any]]) -> Sequence[float]:
    """When each MiB was sent that the last endless Put took: none, if it was refused before the first."""
    _small_puts, endless_put, *_ = ends
    *_, put = (call for call in ended if call["method"] == "Put" and call["code"] != "OK")
    return endless_put.sent_at[: put["bytes_in"] >> 20]


async def _working(world: World, tenant_id: str) -> None:
    """Return once Put, Get and Export all work."""
    while True:
        try:
            await streams.put_whole(world.storage, tenant_id, f"again/{uuid.uuid4()}", b"again")
            await streams.get_whole(world.storage, tenant_id, "first/0")
            async for _response in world.storage.Export(ExportRequest(tenant_id=tenant_id, prefix="first/")):
                pass
        except grpc.RpcError:
            await asyncio.sleep(_POLL)
        else:
            return


def _ended_at(call: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(call["timestamp"]).timestamp()
