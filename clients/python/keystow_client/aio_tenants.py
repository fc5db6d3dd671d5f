"""The asynchronous client's calls about tenants."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from google.protobuf.duration_pb2 import Duration

from keystow.v1 import tenants_pb2
from keystow_client.connection import Connection
from keystow_client.models import (
    DataCenter,
    KeyCheck,
    KeyManagement,
    KeyPolicyFormat,
    KeyReport,
    Registration,
    Tenant,
    TenantPage,
)

_KEY_MANAGEMENTS = {
    KeyManagement.PROVIDER: tenants_pb2.KEY_MANAGEMENT_PROVIDER,
    KeyManagement.SELF: tenants_pb2.KEY_MANAGEMENT_SELF,
}
_POLICY_FORMATS = {
    KeyPolicyFormat.KEY_POLICY_JSON: tenants_pb2.GetKeyPolicyRequest.FORMAT_KEY_POLICY_JSON,
    KeyPolicyFormat.CLOUDFORMATION: tenants_pb2.GetKeyPolicyRequest.FORMAT_CLOUDFORMATION,
    KeyPolicyFormat.TERRAFORM: tenants_pb2.GetKeyPolicyRequest.FORMAT_TERRAFORM,
    KeyPolicyFormat.CONSOLE_STEPS: tenants_pb2.GetKeyPolicyRequest.FORMAT_CONSOLE_STEPS,
}


class AsyncTenants(ABC):
    """The part of AsyncClient that registers and describes tenants."""

    @property
    @abstractmethod
    def _open(self) -> Connection:
        """The connection. Raises RuntimeError outside the client's context."""

    async def register_tenant(
        self,
        tenant: str,
        *,
        data_center: str,
        key_management: KeyManagement,
        confirm_permanent: bool,
        kms_key_arn: str = "",
        display_name: str = "",
        wait: float = 0.0,
    ) -> Registration:
        """Bind a tenant to its data centre and its key, for good: ``confirm_permanent`` must be True.

        ``kms_key_arn`` is the full ARN of the customer's key, for KeyManagement.SELF only. ``wait`` is how many seconds
        the service may wait for a fresh key policy to take effect.
        """
        if key_management not in _KEY_MANAGEMENTS:
            raise ValueError("key_management is KeyManagement.PROVIDER or KeyManagement.SELF")
        request = tenants_pb2.RegisterTenantRequest(
            tenant_id=tenant,
            display_name=display_name,
            key_management=_KEY_MANAGEMENTS[key_management],
            kms_key_arn=kms_key_arn,
            data_center=data_center,
            confirm_permanent=confirm_permanent,
            wait=_duration(wait),
        )
        response = await self._open.call(self._open.tenants.RegisterTenant, request, extra_patience=wait)
        return Registration(Tenant.from_proto(response.tenant), tuple(map(KeyCheck.from_proto, response.checks)))

    async def check_key(self, tenant: str, *, data_center: str, kms_key_arn: str, wait: float = 0.0) -> KeyReport:
        """Try a customer's key as register_tenant would, and change nothing. A key that fails is no error.

        The arguments are those of register_tenant. Raises KeystowError also where KMS does not answer.
        """
        request = tenants_pb2.CheckKeyRequest(
            tenant_id=tenant, kms_key_arn=kms_key_arn, data_center=data_center, wait=_duration(wait)
        )
        return KeyReport.from_proto(
            await self._open.call(self._open.tenants.CheckKey, request, extra_patience=wait),
        )

    async def get_key_policy(self, tenant: str, *, data_center: str, policy_format: KeyPolicyFormat) -> str:
        """What a customer applies in its AWS account so that the service may use its key; for tenants to come, too."""
        request = tenants_pb2.GetKeyPolicyRequest(
            tenant_id=tenant, data_center=data_center, format=_POLICY_FORMATS[policy_format]
        )
        return (await self._open.call(self._open.tenants.GetKeyPolicy, request)).document

    async def get_tenant(self, tenant: str) -> Tenant:
        """A tenant, its choices, and how its key does."""
        request = tenants_pb2.GetTenantRequest(tenant_id=tenant)
        return Tenant.from_proto((await self._open.call(self._open.tenants.GetTenant, request)).tenant)

    async def list_tenants(self, *, page_size: int = 0) -> AsyncGenerator[Tenant, None]:
        """All tenants, page by page."""
        page = await self.list_tenants_page(page_size=page_size)
        while True:
            for tenant in page.tenants:
                yield tenant
            if not page.next_page_token:
                return
            page = await self.list_tenants_page(page_size=page_size, page_token=page.next_page_token)

    async def list_tenants_page(self, *, page_size: int = 0, page_token: str = "") -> TenantPage:
        """One page of ``list_tenants``."""
        request = tenants_pb2.ListTenantsRequest(page_size=page_size, page_token=page_token)
        response = await self._open.call(self._open.tenants.ListTenants, request)
        return TenantPage(tuple(map(Tenant.from_proto, response.tenants)), response.next_page_token)

    async def list_data_centers(self) -> tuple[DataCenter, ...]:
        """Where tenants can be placed."""
        response = await self._open.call(self._open.tenants.ListDataCenters, tenants_pb2.ListDataCentersRequest())
        return tuple(DataCenter(dc.name, dc.display_name, dc.region) for dc in response.data_centers)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
