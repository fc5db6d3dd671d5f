"""Key policies for tests that are about something else: proper ones, as a careful customer writes them."""

import json

from servers.kms.policy import Document, Policy
from servers.kms.principals import PROVIDER_ROLE

_USES = ("kms:GenerateDataKey", "kms:Decrypt")


def owner_policy(account: str) -> Document:
    """AWS's default: the account decides, by IAM."""
    root = {"AWS": f"arn:aws:iam::{account}:root"}
    return _document({"Sid": "Owner", "Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"})


def tenant_policy(account: str, *tenants: str) -> Document:
    """The owner's, and the provider's role may use the key for these tenants."""
    provider = {"Effect": "Allow", "Principal": {"AWS": PROVIDER_ROLE}, "Resource": "*"}
    confined = {"StringEquals": {"kms:EncryptionContext:keystow:tenant": list(tenants)}}
    use = {"Sid": "Use", **provider, "Action": list(_USES), "Condition": confined}
    describe = {"Sid": "Describe", **provider, "Action": "kms:DescribeKey"}
    return _document(*owner_policy(account)["Statement"], *([use] if tenants else []), describe)


def broad_policy(account: str) -> Document:
    """Careless: the provider's role may use the key for any tenant."""
    provider = {"AWS": PROVIDER_ROLE}
    broad = {"Effect": "Allow", "Principal": provider, "Action": [*_USES, "kms:DescribeKey"], "Resource": "*"}
    return _document(*owner_policy(account)["Statement"], broad)


def denying(policy: Policy, *operations: str) -> Document:
    """As before, but the provider's role may not do these, whatever else is said."""
    actions = [f"kms:{operation}" for operation in operations]
    deny = {"Effect": "Deny", "Principal": {"AWS": PROVIDER_ROLE}, "Action": actions, "Resource": "*"}
    return _document(*json.loads(policy.text)["Statement"], deny)


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
