"""What a customer applies in its own AWS account so that the service may use its key, and no more.

The promise: the service is granted the three operations that it needs, two of them for the one tenant alone, and none
of the key's administration. One set of statements (statements.py) is rendered in every format.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from keystow_service.errors import KeyPolicyUnavailableError
from keystow_service.keys.key_policy import cloudformation, console, policy_json, terraform
from keystow_service.keys.key_policy.statements import Grant
from keystow_service.model import TenantId
from keystow_service.ports import Sites, chosen_site


class Format(Enum):
    """How a policy is rendered."""

    KEY_POLICY_JSON = auto()
    CLOUDFORMATION = auto()
    TERRAFORM = auto()
    CONSOLE_STEPS = auto()


_RENDER: Mapping[Format, Callable[[Grant], str]] = {
    Format.KEY_POLICY_JSON: policy_json.render,
    Format.CLOUDFORMATION: cloudformation.render,
    Format.TERRAFORM: terraform.render,
    Format.CONSOLE_STEPS: console.render,
}


@dataclass(frozen=True, slots=True)
class PolicyCommand:
    """For which tenant, registered or not, and in which form."""

    tenant_id: TenantId
    data_center: str
    format: Format


class RenderKeyPolicy:
    """See the module."""

    def __init__(self, sites: Sites, in_kms: Collection[str], principal: str | None, deployment_id: str) -> None:
        """``in_kms`` are the data centres whose keys are in AWS KMS; ``principal`` the ARN that uses them."""
        self._sites = sites
        self._in_kms = in_kms
        self._principal = principal
        self._deployment_id = deployment_id

    def __call__(self, command: PolicyCommand) -> str:
        """Raises RequestInvalidError, KeyPolicyUnavailableError."""
        place = chosen_site(self._sites, command.data_center).data_center
        if place.name not in self._in_kms:
            raise KeyPolicyUnavailableError(
                f"The keys of data centre {place.name} are in the service's own keyring, where no key policy applies. "
                f"The service's operator makes the tenant's key: keystow-service keys create --region {place.region} "
                f"--tenant {command.tenant_id}"
            )
        if self._principal is None:
            raise KeyPolicyUnavailableError(
                "The service does not know which AWS principal it is: its operator must set kms_principal_arn."
            )
        return _RENDER[command.format](Grant(command.tenant_id, self._deployment_id, self._principal, place))
