"""The synchronous client's calls about tenants."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from keystow_client.aio_tenants import AsyncTenants
from keystow_client.loop_thread import LoopThread
from keystow_client.models import (
    DataCenter,
    KeyManagement,
    KeyPolicyFormat,
    KeyReport,
    Registration,
    Tenant,
    TenantPage,
)


class Tenants(ABC):
    """The part of Client that registers and describes tenants."""

    _client: AsyncTenants

    @property
    @abstractmethod
    def _loop(self) -> LoopThread:
        """Where the client runs. Raises RuntimeError outside the client's context."""

    def register_tenant(
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
        """Bind a tenant to its data centre and its key, for good."""
        return self._loop.call(
            lambda _: self._client.register_tenant(
                tenant,
                data_center=data_center,
                key_management=key_management,
                confirm_permanent=confirm_permanent,
                kms_key_arn=kms_key_arn,
                display_name=display_name,
                wait=wait,
            )
        )

    def check_key(self, tenant: str, *, data_center: str, kms_key_arn: str, wait: float = 0.0) -> KeyReport:
        """Try a customer's key as register_tenant would, and change nothing. A key that fails is no error."""
        return self._loop.call(
            lambda _: self._client.check_key(tenant, data_center=data_center, kms_key_arn=kms_key_arn, wait=wait)
        )

    def get_key_policy(self, tenant: str, *, data_center: str, policy_format: KeyPolicyFormat) -> str:
        """What a customer applies in its AWS account so that the service may use its key; for tenants to come, too."""
        return self._loop.call(
            lambda _: self._client.get_key_policy(tenant, data_center=data_center, policy_format=policy_format)
        )

    def get_tenant(self, tenant: str) -> Tenant:
        """A tenant, its choices, and how its key does."""
        return self._loop.call(lambda _: self._client.get_tenant(tenant))

    def list_tenants(self, *, page_size: int = 0) -> Iterator[Tenant]:
        """All tenants, page by page."""
        page = self.list_tenants_page(page_size=page_size)
        while True:
            yield from page.tenants
            if not page.next_page_token:
                return
            page = self.list_tenants_page(page_size=page_size, page_token=page.next_page_token)

    def list_tenants_page(self, *, page_size: int = 0, page_token: str = "") -> TenantPage:
        """One page of ``list_tenants``."""
        return self._loop.call(lambda _: self._client.list_tenants_page(page_size=page_size, page_token=page_token))

    def list_data_centers(self) -> tuple[DataCenter, ...]:
        """Where tenants can be placed."""
        return self._loop.call(lambda _: self._client.list_data_centers())
