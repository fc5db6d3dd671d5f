"""What every KMS request is bound to."""

from keystow_service.acting import acting
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


def tenant_concerned(context: EncryptionContext) -> TenantId | None:
    """Whom a request to KMS is about.

    That is not always whom its context names: DescribeKey has none, and a key is tried in the contexts of others, too.
    """
    named = context.get(TENANT_CONTEXT)
    return acting.get().tenant_id or (None if named is None else TenantId(named))
