"""A tenant that manages its own key on a server's local keyring, and the switch in its hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.model import KeyArn
from servers.in_process import Server, register, serving

TENANT = "acme"


class Customer(NamedTuple):
    """See the module."""

    server: Server
    keyring: KeyringAdmin
    arn: KeyArn


@asynccontextmanager
async def customer_of_a_server(data_dir: Path, **settings: Any) -> AsyncIterator[Customer]:
    """The only tenant, TENANT, of a new server. ``settings`` as in Settings."""
    async with serving(data_dir, **settings) as server:
        folder = data_dir / "keyring"
        keyring = KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())
        arn = keyring.create("us-east-1", tenants=[TENANT]).arn
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn.text)
        yield Customer(server, keyring, arn)
