"""Key policies for tests that are about something else: proper ones, as a careful customer writes them."""

from collections.abc import Collection

from servers.kms.policy import Document
from servers.kms.principals import PROVIDER_ROLE

_USES = ("kms:GenerateDataKey", "kms:Decrypt")


def owner_policy(account: str) -> Document:
    """AWS's default: the account decides, by IAM."""
    root = {"AWS": f"arn:aws:iam::{account}:root"}
    return _document({"Sid": "Owner", "Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"})


def tenant_policy(account: str, *tenants: str, without: Collection[str] = ()) -> Document:
    """The owner's, and the provider's role may use the key for these tenants. ``without`` are operations it may not."""
    provider = {"Effect": "Allow", "Principal": {"AWS": PROVIDER_ROLE}, "Resource": "*"}
    uses = [use for use in _USES if use.removeprefix("kms:") not in without]
    confined = {"StringEquals": {"kms:EncryptionContext:keystow:tenant": list(tenants)}}
    statements = list(owner_policy(account)["Statement"])
    if uses and tenants:
        statements.append({"Sid": "Use", **provider, "Action": uses, "Condition": confined})
    if "DescribeKey" not in without:
        statements.append({"Sid": "Describe", **provider, "Action": "kms:DescribeKey"})
    return _document(*statements)


def broad_policy(account: str) -> Document:
    """Careless: the provider's role may use the key for any tenant."""
    provider = {"AWS": PROVIDER_ROLE}
    broad = {"Effect": "Allow", "Principal": provider, "Action": [*_USES, "kms:DescribeKey"], "Resource": "*"}
    return _document(*owner_policy(account)["Statement"], broad)


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
