"""What every KMS request is bound to."""

from keystow_service.model import TenantId
from keystow_service.ports import TENANT_CONTEXT, EncryptionContext


def encryption_context(tenant_id: TenantId, deployment_id: str) -> EncryptionContext:
    """What every KMS request carries and CloudTrail shows in clear: opaque ids only.

    https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
    """
    return {
        TENANT_CONTEXT: tenant_id,
        "keystow:deployment": deployment_id,
        "keystow:purpose": "data-key",
    }
