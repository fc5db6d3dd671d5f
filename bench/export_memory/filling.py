"""Many small objects, stored by the service itself through PutSmall, but without waiting for the disk."""

import asyncio
import logging
import os
import uuid
from pathlib import Path
from unittest import mock

import structlog

from keystow.v1.storage_pb2 import PutHeader, PutSmallRequest
from servers.in_process import Server, register, serving

TENANT = "acme"
FEW = 1_000
ZIP_FULL = 65_534  # and the manifest
# All in one folder, which is the most that a listing has to go through.
PREFIXES = {FEW: "aa", ZIP_FULL: "a"}

_AT_ONCE = 32
_DATA = b"x" * 500
_METADATA = {"source": "bench"}


async def fill(folder: Path, count: int) -> None:
    """Store objects, the first FEW and the first ZIP_FULL of which are also selected by PREFIXES.

    Nothing is synced: how long this takes is not what is measured, and the files are the same.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with mock.patch.object(os, "fsync"), mock.patch.object(os, "fdatasync"):
        async with serving(folder) as server:
            await register(server, TENANT)
            await asyncio.gather(*(_put(server, range(first, count, _AT_ONCE)) for first in range(_AT_ONCE)))


async def _put(server: Server, numbers: range) -> None:
    for number in numbers:
        group = next((prefix for most, prefix in PREFIXES.items() if number < most), "")
        header = PutHeader(
            tenant_id=TENANT, key=f"{group:z<2}{number:06}", upload_id=str(uuid.uuid4()), metadata=_METADATA
        )
        await server.storage.PutSmall(PutSmallRequest(header=header, data=_DATA))
