"""Registering a tenant: a permanent choice, proven before it is written.

A self-managed key is used once as every backup will use it, with this tenant's encryption context, before the registry
takes it: what is registered has worked.
"""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from keystow_service.errors import (
    KeyRefusal,
    KmsAccessDeniedError,
    KmsKeyInUseError,
    KmsKeyNotFoundError,
    KmsKeyRegionMismatchError,
    KmsKeyUnusableError,
    RequestInvalidError,
    TenantExistsError,
    TenantNotFoundError,
    Violation,
)
from keystow_service.keys.encryption_context import encryption_context
from keystow_service.model import DataCenter, KeyArn, KeyManagement, Tenant, TenantId
from keystow_service.ports import Clock, Site, Sites, TenantRegistry

# Fresh key policies take up to five minutes to work everywhere
# (https://docs.aws.amazon.com/kms/latest/developerguide/accessing-kms.html#programming-eventual-consistency).
MAX_WAIT = 300.0
_RETRY_INTERVAL = 3.0


class Outcome(Enum):
    """Of one check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """One thing that a key must pass, with a sentence for the customer's administrator."""

    name: str
    outcome: Outcome
    detail: str


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
    """The tenant as it stands, and what its key has passed."""

    tenant: Tenant
    checks: Sequence[KeyCheck]


class RegisterTenant:
    """See the module."""

    def __init__(self, sites: Sites, registry: TenantRegistry, deployment_id: str, clock: Clock) -> None:
        self._sites = sites
        self._registry = registry
        self._deployment_id = deployment_id
        self._clock = clock

    async def __call__(self, command: RegisterCommand) -> Registered:
        """Raises RequestInvalidError, KmsKeyArn…, KmsKeyRegion…, KmsKeyInUse…, KmsKeyUnusable…, TenantExistsError."""
        site = self._site(command.data_center)
        checks: list[KeyCheck] = []
        if command.key_management is KeyManagement.PROVIDER:
            arn = site.provider_key
        else:
            arn = await self._acceptable(command, site.data_center, checks)
        tenant = Tenant(
            command.tenant_id, command.display_name, command.key_management, arn, command.data_center, self._clock.now()
        )
        if (standing := await self._standing(tenant)) is not None:
            return Registered(standing, ())
        await self._prove(site, tenant, command.wait, checks)
        return Registered(await self._registry.add(tenant), checks)

    def _site(self, name: str) -> Site:
        site = self._sites.get(name)
        if site is None:
            rule = f"must be one of {', '.join(sorted(self._sites))}"
            raise RequestInvalidError(f"data_center {rule}.", violations=[Violation("data_center", rule)])
        return site

    async def _acceptable(self, command: RegisterCommand, place: DataCenter, checks: list[KeyCheck]) -> KeyArn:
        arn = KeyArn.parse(command.kms_key_arn)
        checks.append(KeyCheck("arn.syntax", Outcome.PASSED, "The ARN names one KMS key in full."))
        if arn.region != place.region:
            raise KmsKeyRegionMismatchError(
                f"The key is in {arn.region}, but data centre {place.name} is in {place.region}. "
                f"Use a key in {place.region}, or the data centre of the key's region.",
                violations=[Violation("kms_key_arn", f"must be in {place.region}")],
                key_arn=arn.text,
            )
        checks.append(KeyCheck("arn.region", Outcome.PASSED, f"The key is in {place.region}, as its data centre is."))
        provider_keys = {site.provider_key.identity for site in self._sites.values()}
        if arn.identity in provider_keys or await self._registry.key_in_use(arn, besides=command.tenant_id):
            raise KmsKeyInUseError(
                "This KMS key is bound to another tenant. Use a key of the tenant's own.", key_arn=arn.text
            )
        checks.append(KeyCheck("arn.unused", Outcome.PASSED, "No other tenant is bound to the key."))
        return arn

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

    async def _prove(self, site: Site, tenant: Tenant, wait: float, checks: list[KeyCheck]) -> None:
        deadline = self._clock.boottime() + min(wait, MAX_WAIT)
        while True:
            name, refusal = await self._try(site, tenant)
            if not isinstance(refusal, KmsAccessDeniedError | KmsKeyNotFoundError):
                break
            if self._clock.boottime() + _RETRY_INTERVAL > deadline:
                break
            await asyncio.sleep(_RETRY_INTERVAL)
        if refusal is None:
            checks.append(KeyCheck("grant.generate", Outcome.PASSED, "KMS made a data key under the key."))
            checks.append(KeyCheck("grant.decrypt", Outcome.PASSED, "KMS unwrapped that data key again."))
            return
        if tenant.key_management is KeyManagement.PROVIDER:
            raise refusal
        raise KmsKeyUnusableError(
            f"The key failed the check {name}: {refusal.message}",
            violations=[Violation(name, refusal.message)],
            tenant_id=tenant.tenant_id,
            key_arn=tenant.key_arn.text,
        ) from None

    async def _try(self, site: Site, tenant: Tenant) -> tuple[str, KeyRefusal | None]:
        """The check that was tried last, and why it failed."""
        context = encryption_context(tenant.tenant_id, self._deployment_id)
        name = "grant.generate"
        try:
            key = await site.key_service.generate_data_key(tenant.key_arn, context)
            name = "grant.decrypt"
            unwrapped = await site.key_service.unwrap(tenant.key_arn, key.wrapped, context)
        except KeyRefusal as refusal:
            return name, refusal
        if not hmac.compare_digest(unwrapped.plaintext, key.plaintext):
            return name, KmsAccessDeniedError("KMS unwrapped a data key to other bytes than it had wrapped.")
        return name, None
