"""keystow.v1.TenantService: each method translates, calls its use case, and translates back."""

import re
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from keystow.v1 import tenants_pb2, tenants_pb2_grpc
from keystow_service.keys.checks import MAX_WAIT
from keystow_service.keys.health import KeyHealthView
from keystow_service.keys.key_policy import Format, PolicyCommand, RenderKeyPolicy
from keystow_service.keys.key_report import KeyCheck, Outcome
from keystow_service.keys.onboarding import CheckCommand, CheckKey, RegisterCommand, RegisterTenant
from keystow_service.model import DataCenter, KeyHealth, KeyManagement, Tenant
from keystow_service.ports import TenantRegistry
from keystow_service.rpc import page_token, translate
from keystow_service.rpc.call import Context

_MAX_DISPLAY_NAME = 200
_DISPLAY_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")
_PAGE_SCOPE = "tenants"

_KEY_MANAGEMENT = {
    tenants_pb2.KEY_MANAGEMENT_PROVIDER: KeyManagement.PROVIDER,
    tenants_pb2.KEY_MANAGEMENT_SELF: KeyManagement.SELF,
}
_KEY_MANAGEMENT_OUT = {ours: theirs for theirs, ours in _KEY_MANAGEMENT.items()}
_FORMATS = {
    tenants_pb2.GetKeyPolicyRequest.FORMAT_KEY_POLICY_JSON: Format.KEY_POLICY_JSON,
    tenants_pb2.GetKeyPolicyRequest.FORMAT_CLOUDFORMATION: Format.CLOUDFORMATION,
    tenants_pb2.GetKeyPolicyRequest.FORMAT_TERRAFORM: Format.TERRAFORM,
    tenants_pb2.GetKeyPolicyRequest.FORMAT_CONSOLE_STEPS: Format.CONSOLE_STEPS,
}
_OUTCOMES = {
    Outcome.PASSED: tenants_pb2.KeyCheck.OUTCOME_PASSED,
    Outcome.FAILED: tenants_pb2.KeyCheck.OUTCOME_FAILED,
    Outcome.WARNING: tenants_pb2.KeyCheck.OUTCOME_WARNING,
    Outcome.SKIPPED: tenants_pb2.KeyCheck.OUTCOME_SKIPPED,
}


class TenantService(tenants_pb2_grpc.TenantServiceServicer):
    """See the contract, protos/keystow/v1/tenants.proto."""

    def __init__(
        self,
        register: RegisterTenant,
        check_key: CheckKey,
        render_key_policy: RenderKeyPolicy,
        registry: TenantRegistry,
        health: KeyHealthView,
        data_centers: Sequence[DataCenter],
        revocation_bound: float,
    ) -> None:
        """``revocation_bound`` in seconds: for how long data keys are used after KMS has last answered."""
        self._register = register
        self._check_key = check_key
        self._render_key_policy = render_key_policy
        self._registry = registry
        self._health = health
        self._data_centers = data_centers
        self._revocation_bound = revocation_bound

    async def RegisterTenant(
        self,
        request: tenants_pb2.RegisterTenantRequest,
        context: Context,
    ) -> tenants_pb2.RegisterTenantResponse:
        registered = await self._register(_command(request))
        return tenants_pb2.RegisterTenantResponse(
            tenant=(await self._told([registered.tenant]))[0], checks=[_check(check) for check in registered.checks]
        )

    async def GetTenant(self, request: tenants_pb2.GetTenantRequest, context: Context) -> tenants_pb2.GetTenantResponse:
        tenant = await self._registry.get(translate.tenant_id(request.tenant_id))
        return tenants_pb2.GetTenantResponse(tenant=(await self._told([tenant]))[0])

    async def ListTenants(
        self,
        request: tenants_pb2.ListTenantsRequest,
        context: Context,
    ) -> tenants_pb2.ListTenantsResponse:
        size = translate.page_size(request.page_size)
        start_after = page_token.decode(request.page_token, scope=_PAGE_SCOPE)
        found = await self._registry.list(start_after=start_after, limit=size + 1)
        page, more = found[:size], len(found) > size
        return tenants_pb2.ListTenantsResponse(
            tenants=await self._told(page),
            next_page_token=page_token.encode(page[-1].tenant_id, scope=_PAGE_SCOPE) if more else "",
        )

    async def ListDataCenters(
        self,
        request: tenants_pb2.ListDataCentersRequest,
        context: Context,
    ) -> tenants_pb2.ListDataCentersResponse:
        return tenants_pb2.ListDataCentersResponse(
            data_centers=[
                tenants_pb2.DataCenter(name=each.name, display_name=each.display_name, region=each.region)
                for each in self._data_centers
            ]
        )

    async def CheckKey(self, request: tenants_pb2.CheckKeyRequest, context: Context) -> tenants_pb2.CheckKeyResponse:
        report = await self._check_key(_check_command(request))
        state = "UNSPECIFIED" if report.state is None else report.state.value
        return tenants_pb2.CheckKeyResponse(
            usable=not report.failures,
            checks=[_check(check) for check in report.checks],
            state=tenants_pb2.KeyState.Value(f"KEY_STATE_{state}"),
        )

    async def GetKeyPolicy(
        self,
        request: tenants_pb2.GetKeyPolicyRequest,
        context: Context,
    ) -> tenants_pb2.GetKeyPolicyResponse:
        return tenants_pb2.GetKeyPolicyResponse(document=self._render_key_policy(_policy_command(request)))

    async def _told(self, tenants: Sequence[Tenant]) -> Sequence[tenants_pb2.Tenant]:
        health = await self._health.of([tenant.tenant_id for tenant in tenants])
        return [self._tenant(tenant, health.get(tenant.tenant_id)) for tenant in tenants]

    def _tenant(self, tenant: Tenant, health: KeyHealth | None) -> tenants_pb2.Tenant:
        return tenants_pb2.Tenant(
            tenant_id=tenant.tenant_id,
            display_name=tenant.display_name,
            key_management=_KEY_MANAGEMENT_OUT[tenant.key_management],
            kms_key_arn=tenant.key_arn.text,
            data_center=tenant.data_center,
            create_time=translate.timestamp(tenant.create_time),
            key_health=self._key_health(health),
        )

    def _key_health(self, health: KeyHealth | None) -> tenants_pb2.KeyHealth:
        bound = Duration()
        bound.FromNanoseconds(int(self._revocation_bound * 1e9))
        message = tenants_pb2.KeyHealth(revocation_bound=bound)
        if health is not None:
            newest = health.newest
            message.state = tenants_pb2.KeyState.Value(f"KEY_STATE_{newest.state.value}")
            message.check_time.FromDatetime(newest.time)
            message.since_time.FromDatetime(health.since_time)
            message.reason = newest.reason
            message.aws_request_id = newest.request_id
            if newest.deletion_time is not None:
                message.deletion_time.FromDatetime(newest.deletion_time)
            if health.last_success_time is not None:
                message.last_success_time.FromDatetime(health.last_success_time)
        return message


def _command(request: tenants_pb2.RegisterTenantRequest) -> RegisterCommand:
    management = _KEY_MANAGEMENT.get(request.key_management)
    translate.require(
        [
            (management is not None, "key_management", "must be KEY_MANAGEMENT_PROVIDER or KEY_MANAGEMENT_SELF"),
            (
                management is not KeyManagement.PROVIDER or request.kms_key_arn == "",
                "kms_key_arn",
                "must be empty for a provider-managed key",
            ),
            (
                management is not KeyManagement.SELF or request.kms_key_arn != "",
                "kms_key_arn",
                "must be the full key ARN for a self-managed key",
            ),
            (
                len(request.display_name) <= _MAX_DISPLAY_NAME
                and _DISPLAY_NAME.fullmatch(request.display_name) is not None,
                "display_name",
                f"must be at most {_MAX_DISPLAY_NAME} characters, without control characters",
            ),
            (request.confirm_permanent, "confirm_permanent", "must be true: the choice can never be changed"),
            _wait_rule(request.wait),
        ]
    )
    return RegisterCommand(
        tenant_id=translate.tenant_id(request.tenant_id),
        display_name=request.display_name,
        key_management=management or KeyManagement.PROVIDER,
        kms_key_arn=request.kms_key_arn,
        data_center=request.data_center,
        wait=_seconds(request.wait),
    )


def _check_command(request: tenants_pb2.CheckKeyRequest) -> CheckCommand:
    translate.require(
        [(request.kms_key_arn != "", "kms_key_arn", "must be the full key ARN"), _wait_rule(request.wait)]
    )
    return CheckCommand(
        tenant_id=translate.tenant_id(request.tenant_id),
        kms_key_arn=request.kms_key_arn,
        data_center=request.data_center,
        wait=_seconds(request.wait),
    )


def _policy_command(request: tenants_pb2.GetKeyPolicyRequest) -> PolicyCommand:
    style = _FORMATS.get(request.format)
    translate.require([(style is not None, "format", "must be a known Format")])
    return PolicyCommand(translate.tenant_id(request.tenant_id), request.data_center, style or Format.KEY_POLICY_JSON)


def _wait_rule(wait: Duration) -> tuple[bool, str, str]:
    return 0 <= _seconds(wait) <= MAX_WAIT, "wait", f"must be 0 to {MAX_WAIT:.0f} s"


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _check(check: KeyCheck) -> tenants_pb2.KeyCheck:
    return tenants_pb2.KeyCheck(name=check.check.value, outcome=_OUTCOMES[check.outcome], detail=check.detail)
