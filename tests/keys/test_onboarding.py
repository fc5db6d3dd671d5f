"""What RegisterTenant refuses before it writes anything. The rest is in tests/rpc/test_registration.py."""

from pathlib import Path

import pytest

from clock import FakeClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.adapters.local_store import open_local_store
from keystow_service.adapters.registry import open_registry
from keystow_service.errors import KmsKeyArnInvalidError, KmsKeyInUseError
from keystow_service.keys.checks import KeyChecks
from keystow_service.keys.onboarding import RegisterCommand, RegisterTenant
from keystow_service.model import DataCenter, KeyArn, KeyManagement, TenantId
from keystow_service.ports import Site


async def test_the_provider_key_is_nobodys_own(tmp_path: Path) -> None:
    """A tenant cannot claim the provider's key, which others are protected by, as self-managed."""
    clock = FakeClock()
    paths = tmp_path / "keyring.json", tmp_path / "root.key"
    provider_key = KeyringAdmin(*paths, clock).ensure_provider_key("us-east-1")
    keyring = open_local_keyring(*paths, clock)
    async with (
        open_local_store(tmp_path / "store") as store,
        open_registry(f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}") as registry,
    ):
        sites = {"us": Site(DataCenter("us", "US", "us-east-1"), store, keyring, provider_key)}
        checks = KeyChecks(sites, registry, "test", allow_broad_key_policies=True)
        register = RegisterTenant(sites, registry, checks, "test", clock)
        command = RegisterCommand(TenantId("acme"), "", KeyManagement.SELF, provider_key.text, "us")
        with pytest.raises(KmsKeyInUseError):
            await register(command)
        assert not await registry.list(limit=1)


def test_digits_of_other_scripts_are_no_account() -> None:
    """An ARN is ASCII."""
    arn = "arn:aws:kms:us-east-1:{}:key/0d9f6f8e-5c7b-4a3e-9f0a-1b2c3d4e5f60"
    KeyArn.parse(arn.format("1" * 12))
    with pytest.raises(KmsKeyArnInvalidError):
        KeyArn.parse(arn.format("\N{ARABIC-INDIC DIGIT ONE}" * 12))
