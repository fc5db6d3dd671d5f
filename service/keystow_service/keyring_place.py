"""Where the local keyring is, and who is registered with its keys: what the server's settings say."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.errors import RegistryUnavailableError
from keystow_service.model import KeyArn
from keystow_service.settings import load

_PAGE = 1_000
_NAMED = 10  # tenants; of more only the number


@dataclass(frozen=True, slots=True)
class KeyringPlace:
    """A keyring file, and the registry of the deployment that it belongs to."""

    keyring: Path
    registry_url: str | None  # None: there is none yet

    @classmethod
    def of(cls, config: Path | None, data_dir: Path | None, keyring: Path | None) -> Self:
        """The settings say it, ``data_dir`` goes before them, ``keyring`` before that. Raises SettingsError."""
        settings = load(config)
        if data_dir is not None:
            settings = settings.model_copy(update={"data_dir": data_dir})
        registry_url = None if settings.registry_is_missing else settings.registry_in_force()
        return cls(keyring or settings.keyring_path, registry_url)

    def admin(self) -> KeyringAdmin:
        """What changes the keyring."""
        return KeyringAdmin(self.keyring, self.keyring.with_name("root.key"), SystemClock())

    def tenants_of(self, arn: KeyArn) -> str:
        """Who is registered with a key, in words. Blocks."""
        try:
            names = asyncio.run(self._tenants_of(arn))
        except RegistryUnavailableError:
            return "the registry does not answer who they are"
        if not names:
            return "none so far"
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more

    async def _tenants_of(self, arn: KeyArn) -> list[str]:
        """Raises RegistryUnavailableError."""
        from keystow_service.adapters.registry import open_registry  # noqa: PLC0415 - imports much, and is rarely asked

        found: list[str] = []
        if self.registry_url is not None:
            async with open_registry(self.registry_url) as registry:
                after = ""
                while tenants := await registry.list(start_after=after, limit=_PAGE):
                    found += [tenant.tenant_id for tenant in tenants if tenant.key_arn == arn]
                    after = tenants[-1].tenant_id
        return found
