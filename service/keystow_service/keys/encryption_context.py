"""What every KMS request is bound to."""

from keystow_service.model import TenantId
from keystow_service.ports import TENANT_CONTEXT, EncryptionContext

DEPLOYMENT_CONTEXT = "keystow:deployment"


def encryption_context(tenant_id: TenantId, deployment_id: str) -> EncryptionContext:
    """What every KMS request carries and CloudTrail shows in clear: opaque ids only.

    Key policies of customers admit these names and no others: a further one would need all of them to change.

    https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
    """
    return {
        TENANT_CONTEXT: tenant_id,
        DEPLOYMENT_CONTEXT: deployment_id,
        "keystow:purpose": "data-key",
    }
