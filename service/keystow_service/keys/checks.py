"""Trying a customer's own key, before a tenant is bound to it for good.

The promise: what passes was used just as every backup and restore of the tenant uses it, and serves no other tenant. A
key that fails is an answer; outages, throttling and our own credentials are errors, and say nothing of the key. No
answer tells whose a key is.
"""

import asyncio
import hmac
import secrets
from collections.abc import Iterator

from keystow_service.acting import acting
from keystow_service.errors import (
    KeyRefusal,
    KmsAccessDeniedError,
    KmsKeyArnInvalidError,
    KmsKeyInUseError,
    KmsKeyRegionMismatchError,
    Violation,
    WrappedKeyInvalidError,
)
from keystow_service.keys.encryption_context import encryption_context
from keystow_service.keys.key_judgement import judge
from keystow_service.keys.key_report import Check, KeyReport, Outcome
from keystow_service.keys.punctual import PunctualKeyService
from keystow_service.model import DataCenter, KeyArn, KeyState, TenantId
from keystow_service.ports import TENANT_CONTEXT, EncryptionContext, KeyService, Site, Sites, TenantRegistry

# Fresh keys and policies take up to five minutes to work everywhere
# (https://docs.aws.amazon.com/kms/latest/developerguide/accessing-kms.html#programming-eventual-consistency).
MAX_WAIT = 300.0
_MAX_PAUSE = 5.0
_ANSWER_TIME = 2.0  # before the call's deadline, for the last try and the way back


class KeyChecks:
    """See the module."""

    def __init__(
        self, sites: Sites, registry: TenantRegistry, deployment_id: str, *, allow_broad_key_policies: bool
    ) -> None:
        """With ``allow_broad_key_policies`` a key that serves any tenant is warned about, and else refused."""
        self._provider_keys = {site.provider_key.identity for site in sites.values()}
        self._registry = registry
        self._deployment_id = deployment_id
        self._broad = Outcome.WARNING if allow_broad_key_policies else Outcome.FAILED

    async def __call__(self, kms_key_arn: str, tenant_id: TenantId, site: Site, *, wait: float) -> KeyReport:
        """Try everything, in order.

        What KMS denies or does not find is tried again for ``wait`` seconds, while the call's deadline leaves time for
        an answer. Raises KmsUnavailableError, KmsThrottledError, ProviderCredentialsError, RegistryUnavailableError.
        """
        placed = KeyReport()
        arn = await self._place(kms_key_arn, tenant_id, site.data_center, placed)
        if arn is None:
            return placed
        kms = PunctualKeyService(site.key_service)
        time = asyncio.get_running_loop().time
        until = min(time() + wait, acting.get().deadline - _ANSWER_TIME)
        pauses = _pauses()
        while True:
            report = placed.copy()
            await self._try(arn, tenant_id, kms, report)
            pause = next(pauses)
            if not report.worth_waiting or time() + pause > until:
                break
            await asyncio.sleep(pause)
        if report.passed(Check.DECRYPT):
            await self._try_for_others(arn, tenant_id, kms, report)
        return report

    async def _place(
        self, kms_key_arn: str, tenant_id: TenantId, place: DataCenter, report: KeyReport
    ) -> KeyArn | None:
        """The key, if it is in its place and free. KMS is not asked about any other: it may be somebody else's."""
        check = Check.SYNTAX
        try:
            arn = KeyArn.parse(kms_key_arn)
            report.add(check, Outcome.PASSED, "The ARN names one KMS key in full.")
            check = Check.REGION
            _require_region(arn, place)
            report.add(check, Outcome.PASSED, f"The key is in {arn.region}, as its data centre is.")
            check = Check.UNUSED
            await self._require_unused(arn, tenant_id)
            report.add(check, Outcome.PASSED, "No other tenant is bound to the key.")
        except (KmsKeyArnInvalidError, KmsKeyRegionMismatchError, KmsKeyInUseError) as error:
            report.add(check, Outcome.FAILED, error.message)
            report.misplaced = error
            return None
        return arn

    async def _require_unused(self, arn: KeyArn, tenant_id: TenantId) -> None:
        if arn.identity in self._provider_keys or await self._registry.key_in_use(arn, besides=tenant_id):
            raise KmsKeyInUseError(
                "The KMS key is in use already. Each tenant brings a key of its own. A multi-Region key and all of its "
                "replicas are one key.",
                key_arn=arn.text,
            )

    async def _try(self, arn: KeyArn, tenant_id: TenantId, kms: KeyService, report: KeyReport) -> None:
        try:
            description = await kms.describe(arn)
        except KmsAccessDeniedError as refusal:
            report.refused(Check.DESCRIBE, refusal)  # and go on: whatever else lacks is told at once
        except KeyRefusal as refusal:
            report.refused(Check.DESCRIBE, refusal)
            return
        else:
            report.state = description.state
            report.add(Check.DESCRIBE, *judge(description))
            if not report.passed(Check.DESCRIBE):
                return
        await self._try_use(arn, encryption_context(tenant_id, self._deployment_id), kms, report)

    async def _try_use(self, arn: KeyArn, context: EncryptionContext, kms: KeyService, report: KeyReport) -> None:
        try:
            made = await kms.generate_data_key(arn, context)
        except KeyRefusal as refusal:
            report.refused(Check.GENERATE, refusal)
            return
        report.add(Check.GENERATE, Outcome.PASSED, "The service made a data key under the key: it can back up.")
        try:
            unwrapped = await kms.unwrap(arn, made.wrapped, context)
        except (KeyRefusal, WrappedKeyInvalidError) as refusal:
            report.refused(Check.DECRYPT, refusal)
            return
        report.state = KeyState.ENABLED
        if hmac.compare_digest(unwrapped.plaintext, made.plaintext):
            report.add(Check.DECRYPT, Outcome.PASSED, "The service unwrapped that data key: it can restore.")
        else:
            report.add(Check.DECRYPT, Outcome.FAILED, "The data key came back other than it was. Use another key.")

    async def _try_for_others(self, arn: KeyArn, tenant_id: TenantId, kms: KeyService, report: KeyReport) -> None:
        """Only GenerateDataKey proves something here: Decrypt fails with a wrong context whatever the policy says."""
        served = []
        try:
            for whom, context in self._others(tenant_id):
                if await _serves(arn, context, kms):
                    served.append(whom)
        except KeyRefusal as refusal:  # disabled just now, for example
            report.refused(Check.CONFINED, refusal)
            return
        if not served:
            report.add(Check.CONFINED, Outcome.PASSED, "The key serves this tenant, and no other.")
            return
        report.add(
            Check.CONFINED,
            self._broad,
            f"The service may use the key {' and '.join(served)}, so that it could be claimed for somebody else's "
            f"backups. Confine it to this tenant: where its policy grants kms:GenerateDataKey and kms:Decrypt, add the "
            f"condition that kms:EncryptionContext:{TENANT_CONTEXT} equals {tenant_id}, as GetKeyPolicy shows it.",
        )

    def _others(self, tenant_id: TenantId) -> Iterator[tuple[str, EncryptionContext]]:
        """Contexts in which the key must not serve. Nobody's ids: CloudTrail shows them to the key's owner."""
        somebody = TenantId(f"keystow-probe-{secrets.token_hex(8)}")
        longer = TenantId(f"{tenant_id[:54]}-{secrets.token_hex(4)}")
        prefixed = TenantId(f"k{secrets.token_hex(4)}-{tenant_id[-53:]}")
        yield "for any other tenant", encryption_context(somebody, self._deployment_id)
        yield "for tenants whose ids begin alike", encryption_context(longer, self._deployment_id)
        yield "for tenants whose ids end alike", encryption_context(prefixed, self._deployment_id)
        yield "without a tenant", {}


def _require_region(arn: KeyArn, place: DataCenter) -> None:
    if arn.region != place.region:
        raise KmsKeyRegionMismatchError(
            f"The key is in {arn.region}, but data centre {place.name} is in {place.region}. "
            f"Use a key in {place.region}, or the data centre of the key's region.",
            violations=[Violation("kms_key_arn", f"must be in {place.region}")],
            key_arn=arn.text,
        )


async def _serves(arn: KeyArn, context: EncryptionContext, kms: KeyService) -> bool:
    try:
        await kms.generate_data_key(arn, context)
    except KmsAccessDeniedError:
        return False
    return True


def _pauses() -> Iterator[float]:
    pause = 0.5
    while True:
        yield pause
        pause = min(pause * 2, _MAX_PAUSE)
