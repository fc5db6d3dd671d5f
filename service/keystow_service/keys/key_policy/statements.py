"""The statements of a key policy, as JSON has them; every format carries these very ones.

Conditions on the encryption context, by
https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-encryption-context:
the names of its pairs are compared without case there, and other pairs are let in; so kms:EncryptionContextKeys, which
minds the case, admits just the names that the service sends. That ForAllValues alone would let in requests without a
context does no harm, because StringEquals asks for the tenant.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from keystow_service.keys.encryption_context import DEPLOYMENT_CONTEXT, encryption_context
from keystow_service.model import DataCenter, TenantId
from keystow_service.ports import TENANT_CONTEXT

Statement: TypeAlias = Mapping[str, Any]

# Everything that a key's owner does with it, save using it: whoever may change the policy can grant that, too.
# https://docs.aws.amazon.com/kms/latest/developerguide/kms-api-permissions-reference.html
_ADMINISTRATION = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may use a key, for whom, and where the key is."""

    tenant_id: TenantId
    deployment_id: str
    principal: str  # the ARN of an IAM role or user
    place: DataCenter

    @property
    def description(self) -> str:
        """Of the key."""
        return f"Protects the backups of {self.tenant_id}"

    @property
    def alias(self) -> str:
        """Of the key, for people: the service goes by its ARN."""
        return f"alias/keystow-{self.tenant_id}"


def provider_statements(grant: Grant) -> Sequence[Statement]:
    """What the service needs, and no more."""
    context = encryption_context(grant.tenant_id, grant.deployment_id)
    provider = {"Effect": "Allow", "Principal": {"AWS": grant.principal}}
    return (
        # Takes no encryption context. It tells a disabled key from one that is to be deleted.
        {"Sid": "KeystowDescribesTheKey", **provider, "Action": "kms:DescribeKey", "Resource": "*"},
        {
            "Sid": "KeystowUsesTheKeyForOneTenant",
            **provider,
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": "*",
            "Condition": {
                "StringEquals": {
                    f"kms:EncryptionContext:{name}": context[name] for name in (TENANT_CONTEXT, DEPLOYMENT_CONTEXT)
                },
                "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": sorted(context)},
            },
        },
    )


def new_key_policy(grant: Grant, owner: object) -> Mapping[str, Any]:
    """Of a key that is made for this: ``owner`` is the root of the customer's account, however a format says that.

    Without such a statement nobody could change the policy any more
    (https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html).
    """
    administration = {
        "Sid": "OwnerAdministersTheKey",
        "Effect": "Allow",
        "Principal": {"AWS": owner},
        "Action": list(_ADMINISTRATION),
        "Resource": "*",
    }
    return policy(administration, *provider_statements(grant))


def policy(*statements: Statement) -> Mapping[str, Any]:
    """A document of these."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def written(document: object) -> str:
    """As JSON, for people to read."""
    return json.dumps(document, indent=2)
