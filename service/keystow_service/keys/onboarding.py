"""Binding a tenant to its key: a permanent choice, proven before it is written; and proving a key without choosing it.

A self-managed key passes every check (checks.py) before the registry takes it: what is registered has worked. Whatever
was found before, the registry decides between those who try at the same time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keystow_service.acting import Urgency, concerning
from keystow_service.errors import KmsKeyUnusableError, TenantExistsError, TenantNotFoundError, Violation
from keystow_service.keys.checks import KeyChecks
from keystow_service.keys.encryption_context import encryption_context
from keystow_service.keys.key_report import KeyCheck, KeyReport
from keystow_service.keys.punctual import PunctualKeyService
from keystow_service.model import KeyArn, KeyManagement, Tenant, TenantId
from keystow_service.ports import Clock, Site, Sites, TenantRegistry, chosen_site


@dataclass(frozen=True, slots=True)
class CheckCommand:
    """A key to try. ``wait`` is in seconds."""

    tenant_id: TenantId
    kms_key_arn: str
    data_center: str
    wait: float = 0.0


class CheckKey:
    """Tries a key as RegisterTenant would, and changes nothing."""

    def __init__(self, sites: Sites, checks: KeyChecks) -> None:
        self._sites = sites
        self._checks = checks

    async def __call__(self, command: CheckCommand) -> KeyReport:
        """Raises RequestInvalidError, and what KeyChecks raises."""
        site = chosen_site(self._sites, command.data_center)
        with concerning(command.tenant_id, Urgency.BACKUP):
            return await self._checks(command.kms_key_arn, command.tenant_id, site, wait=command.wait)


@dataclass(frozen=True, slots=True)
class RegisterCommand:
    """The choice. ``kms_key_arn`` is empty for provider-managed keys; ``wait`` is in seconds."""

    tenant_id: TenantId
    display_name: str
    key_management: KeyManagement
    kms_key_arn: str
    data_center: str
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Registered:
    """The tenant as it stands, and what was found of a key of its own that was tried just now."""

    tenant: Tenant
    checks: Sequence[KeyCheck]


class RegisterTenant:
    """See the module."""

    def __init__(
        self, sites: Sites, registry: TenantRegistry, checks: KeyChecks, deployment_id: str, clock: Clock
    ) -> None:
        self._sites = sites
        self._registry = registry
        self._checks = checks
        self._deployment_id = deployment_id
        self._clock = clock

    async def __call__(self, command: RegisterCommand) -> Registered:
        """Raises RequestInvalidError, KmsKeyArn…, KmsKeyRegion…, KmsKeyInUse…, KmsKeyUnusable…, TenantExistsError."""
        site = chosen_site(self._sites, command.data_center)
        own = command.key_management is KeyManagement.SELF
        tenant = Tenant(
            command.tenant_id,
            command.display_name,
            command.key_management,
            KeyArn.parse(command.kms_key_arn) if own else site.provider_key,
            command.data_center,
            self._clock.now(),
        )
        if (standing := await self._standing(tenant)) is not None:
            return Registered(standing, ())
        checks: Sequence[KeyCheck] = ()
        with concerning(command.tenant_id, Urgency.BACKUP):
            if own:
                report = await self._checks(command.kms_key_arn, command.tenant_id, site, wait=command.wait)
                _require_usable(report, tenant)
                checks = report.checks
            else:
                await self._use_provider_key(tenant, site)
        return Registered(await self._registry.add(tenant), checks)

    async def _standing(self, tenant: Tenant) -> Tenant | None:
        """The tenant as registered before, by the same choice."""
        try:
            standing = await self._registry.get(tenant.tenant_id)
        except TenantNotFoundError:
            return None
        if not standing.same_choice(tenant):
            raise TenantExistsError(
                "The tenant is registered already, with another key, data centre or name. The choice is permanent.",
                tenant_id=tenant.tenant_id,
            )
        return standing

    async def _use_provider_key(self, tenant: Tenant, site: Site) -> None:
        """Raises what is wrong with it, for the operator."""
        context = encryption_context(tenant.tenant_id, self._deployment_id)
        kms = PunctualKeyService(site.key_service)
        made = await kms.generate_data_key(tenant.key_arn, context)
        await kms.unwrap(tenant.key_arn, made.wrapped, context)


def _require_usable(report: KeyReport, tenant: Tenant) -> None:
    if report.misplaced is not None:
        raise report.misplaced
    if report.failures:
        names = ", ".join(failure.check.value for failure in report.failures)
        raise KmsKeyUnusableError(
            f"The key failed {names}, so nothing is registered. The violations say what to do; then register again.",
            violations=[Violation(failure.check.value, failure.detail) for failure in report.failures],
            tenant_id=tenant.tenant_id,
            key_arn=tenant.key_arn.text,
        )
