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

    last_plaintext: float  # to the last plaintext of any stream that was handed to the transport; 0 if none was
    last_stored: float  # to the last acknowledged Put; 0 if none was
    resumed: float  # from enabling the key until Put, Get and Export worked
    problems: Sequence[str]


async def run_trial(world: World, tenant_id: str, bound: float, chance: random.Random) -> Outcome:
    """With a tenant and a key of its own."""
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
    for name, size in [(BIG, _BIG_SIZE), *((f"first/{number}", 1_000) for number in range(_SMALL_OBJECTS))]:
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
    switched.set()
    async with asyncio.timeout(_TIMEOUT):
        reasons = await asyncio.gather(*running)
        ended = await _ended(world, tenant_id, len(running))
    problems = [f"a stream ended with {reason}" for reason in reasons if reason != "KMS_KEY_DISABLED"]
    handed_out = [at - disabled_at for call in ended if (at := handed_out_at(call)) is not None]
    finished = [
        _finished_at(call) - disabled_at
        for call in ended
        if call["method"] in ("Put", "PutSmall") and call["code"] == "OK"
    ]
    enabled_at = time.time()
    key.enable()
    async with asyncio.timeout(_TIMEOUT):
        await _working(world, tenant_id)
    resumed = time.time() - enabled_at
    problems += [
        f"{name} is not what was stored"
        for name, data in stored.items()
        if await streams.get_whole(world.storage, tenant_id, name) != data
    ]
    return Outcome(max([0.0, *handed_out]), max([0.0, *finished]), resumed, problems)


async def _ended(world: World, tenant_id: str, refused: int) -> Sequence[Mapping[str, Any]]:
    """The log's lines of all the tenant's calls, once so many have failed."""
    while True:
        calls = world.calls(tenant_id)
        if sum(call["code"] != "OK" for call in calls) >= refused:
            return calls
        await asyncio.sleep(_POLL)


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


def _finished_at(call: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(call["timestamp"]).timestamp()
