"""A keyring that is missing where there is data under its keys is lost, not new: the promise is not to begin another.

A new one would take new backups, and call the keys of all older ones deleted.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from keystow_service.adapters.keyring_admin import ACCOUNT
from keystow_service.adapters.root_key import KeyringError
from keystow_service.objects.names import ALL_OBJECTS
from keystow_service.ports import ObjectStore, TenantRegistry

_PAGE = 1_000


async def refuse_lost_keyring(keyring: Path, stores: Sequence[ObjectStore], registry: TenantRegistry) -> None:
    """Return if the keyring is there, or nothing needs it yet. ``stores`` are those of the data centres that use it.

    Raises KeyringError, RegistryUnavailableError, and what ObjectStore.list raises.
    """
    if await asyncio.to_thread(keyring.exists):
        return
    if await _has_tenants(registry):
        found = "the registry has tenants whose keys were in it"
    elif await _have_objects(stores):
        found = "there are objects in its data centres"
    else:
        return
    if not await asyncio.to_thread(keyring.exists):  # else another process has begun since
        raise KeyringError(
            f"The keyring {keyring} is missing, but {found}. Restore {keyring.parent} from the backup: without it "
            "nothing that is stored can be read, and a new keyring would not help."
        )


async def _has_tenants(registry: TenantRegistry) -> bool:
    """Whether any tenant's key is a local one."""
    after = ""
    while tenants := await registry.list(start_after=after, limit=_PAGE):
        if any(f":{ACCOUNT}:" in tenant.key_arn.text for tenant in tenants):
            return True
        after = tenants[-1].tenant_id
    return False


async def _have_objects(stores: Sequence[ObjectStore]) -> bool:
    for store in stores:
        if await store.list(ALL_OBJECTS, limit=1):
            return True
    return False
