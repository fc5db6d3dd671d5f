"""Keys on the faithful KMS, and CheckKey over them: the real AWS client, a real registry, two data centres."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.kms import KmsPatience, open_kms
from keystow_service.adapters.local_store import open_local_store
from keystow_service.adapters.registry import open_registry
from keystow_service.keys.checks import KeyChecks
from keystow_service.keys.key_report import KeyReport, Outcome
from keystow_service.keys.onboarding import CheckCommand, CheckKey, RegisterCommand, Registered, RegisterTenant
from keystow_service.model import DataCenter, KeyArn, KeyManagement, TenantId
from keystow_service.ports import Site, TenantRegistry
from servers.kms.principals import PROVIDER_ACCOUNT
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import session_of

REGIONS = {"us": "us-east-1", "eu": "eu-west-1"}
ACME = TenantId("acme")


@dataclass(frozen=True, slots=True)
class Trying:
    """What tests ask, and what they turn."""

    kms: FaithfulKms
    registry: TenantRegistry
    sites: dict[str, Site]

    def checks(self, *, allow_broad_key_policies: bool = False) -> KeyChecks:
        """The operator's choice apart, as every server has them."""
        return KeyChecks(self.sites, self.registry, "tests", allow_broad_key_policies=allow_broad_key_policies)

    async def check(self, arn: str, *, wait: float = 0.0, allow_broad_key_policies: bool = False) -> KeyReport:
        """CheckKey for acme in the US."""
        check = CheckKey(self.sites, self.checks(allow_broad_key_policies=allow_broad_key_policies))
        return await check(CheckCommand(ACME, arn, "us", wait))

    async def register(self, tenant_id: str, arn: str, data_center: str = "us") -> Registered:
        """RegisterTenant with a key of the tenant's own."""
        register = RegisterTenant(self.sites, self.registry, self.checks(), "tests", SystemClock())
        return await register(RegisterCommand(TenantId(tenant_id), "", KeyManagement.SELF, arn, data_center))


def outcomes(report: KeyReport) -> dict[str, Outcome]:
    """Of each check that did not pass."""
    return {each.check.value: each.outcome for each in report.checks if each.outcome is not Outcome.PASSED}


def details(report: KeyReport) -> dict[str, str]:
    """What the administrator reads."""
    return {each.check.value: each.detail for each in report.checks}


@pytest.fixture
async def trying(tmp_path: Path) -> AsyncIterator[Trying]:
    """Without tenants, and without keys but the provider's."""
    patience = KmsPatience(attempts=1)
    async with (
        faithful_kms(*REGIONS.values()) as kms,
        open_kms("us-east-1", session=session_of(), endpoint=kms.endpoints["us-east-1"], patience=patience) as us,
        open_kms("eu-west-1", session=session_of(), endpoint=kms.endpoints["eu-west-1"], patience=patience) as eu,
        open_registry(f"sqlite+aiosqlite:///{tmp_path}/registry.db") as registry,
        open_local_store(tmp_path / "store") as store,
    ):
        sites = {}
        for (name, region), service in zip(REGIONS.items(), (us, eu), strict=True):
            key = kms.create_key(region=region, account=PROVIDER_ACCOUNT)
            sites[name] = Site(DataCenter(name, name, region), store, service, KeyArn.parse(key.arn))
        yield Trying(kms, registry, sites)
