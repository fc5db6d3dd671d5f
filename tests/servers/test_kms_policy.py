"""The faithful KMS evaluates key policies and IAM policies as AWS does, and refuses what it does not know."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from servers.kms.conditions import UnknownPolicyError
from servers.kms.documents import broad_policy, denying, owner_policy, tenant_policy
from servers.kms.policy import Document, Policy
from servers.kms.principals import (
    CUSTOMER,
    CUSTOMER_ACCOUNT,
    PROVIDER,
    PROVIDER_ACCOUNT,
    PROVIDER_ROLE,
    administrator,
)
from servers.kms.server import faithful_kms
from servers.kms.sessions import client_of

ACME = {"keystow:tenant": "acme", "keystow:deployment": "d-1"}
TENANT_KEY = "kms:EncryptionContext:keystow:tenant"


def policy(**fields: Any) -> Document:
    """The owner's, and one more statement: the provider's role may do everything, unless ``fields`` say otherwise."""
    statement = {"Effect": "Allow", "Principal": {"AWS": PROVIDER_ROLE}, "Action": "kms:*", "Resource": "*", **fields}
    return {"Version": "2012-10-17", "Statement": [*owner_policy(CUSTOMER_ACCOUNT)["Statement"], statement]}


def when(operator: str, key: str, *values: str) -> Document:
    """Under one condition."""
    return policy(Condition={operator: {key: list(values)}})


async def permits(document: Document, context: Mapping[str, str], operation: str = "generate_data_key") -> bool:
    """Whether the provider's role may use a key under this policy."""
    async with faithful_kms() as kms, client_of(kms, PROVIDER) as client:
        key = kms.create_key(policy=document)
        fields = {"KeySpec": "AES_256", "EncryptionContext": context} if operation == "generate_data_key" else {}
        with suppress(ClientError):
            await getattr(client, operation)(KeyId=key.arn, **fields)
        assert kms.requests[-1].answer in ("OK", "AccessDeniedException")
        return kms.requests[-1].answer == "OK"


# The document, an encryption context, and whether AWS permits GenerateDataKey.
GENERATE: Mapping[str, tuple[Document, Mapping[str, str], bool]] = {
    "this tenant": (tenant_policy(CUSTOMER_ACCOUNT, "acme"), ACME, True),
    "one of its tenants": (tenant_policy(CUSTOMER_ACCOUNT, "other", "acme"), ACME, True),
    "another tenant": (tenant_policy(CUSTOMER_ACCOUNT, "other"), ACME, False),
    "a longer name": (tenant_policy(CUSTOMER_ACCOUNT, "acme"), {"keystow:tenant": "acme-2"}, False),
    "another case": (tenant_policy(CUSTOMER_ACCOUNT, "acme"), {"keystow:tenant": "Acme"}, False),
    "no context": (tenant_policy(CUSTOMER_ACCOUNT, "acme"), {}, False),
    "owner alone": (owner_policy(CUSTOMER_ACCOUNT), ACME, False),
    "without conditions": (broad_policy(CUSTOMER_ACCOUNT), {}, True),
    "the provider's account": (policy(Principal={"AWS": f"arn:aws:iam::{PROVIDER_ACCOUNT}:root"}), ACME, True),
    "the provider's account, by number": (policy(Principal={"AWS": PROVIDER_ACCOUNT}), ACME, True),
    "another account": (policy(Principal={"AWS": "999900001111"}), ACME, False),
    "another role": (policy(Principal={"AWS": f"arn:aws:iam::{PROVIDER_ACCOUNT}:role/other"}), ACME, False),
    "the session": (policy(Principal={"AWS": PROVIDER.arn}), ACME, True),
    "anybody": (policy(Principal="*"), ACME, True),
    "several": (policy(Principal={"AWS": ["999900001111", PROVIDER_ROLE]}), ACME, True),
    "action by pattern": (policy(Action="kms:GenerateDataKey*"), ACME, True),
    "action in another case": (policy(Action="kms:generatedatakey"), ACME, True),
    "other actions": (policy(Action=["kms:Decrypt", "kms:DescribeKey"]), ACME, False),
    "other resource": (policy(Resource="arn:aws:kms:us-east-1:111122223333:key/other"), ACME, False),
    "resource by pattern": (policy(Resource="arn:aws:kms:us-east-1:111122223333:key/*"), ACME, True),
    "deny": (policy(Effect="Deny"), ACME, False),
    "StringEquals": (when("StringEquals", TENANT_KEY, "acme"), ACME, True),
    "StringEquals of a missing pair": (when("StringEquals", TENANT_KEY, "acme"), {}, False),
    "name of the pair in another case": (when("StringEquals", TENANT_KEY.upper(), "acme"), ACME, True),
    "StringEqualsIfExists": (when("StringEqualsIfExists", TENANT_KEY, "acme"), {}, True),
    "StringNotEquals": (when("StringNotEquals", TENANT_KEY, "acme"), ACME, False),
    "StringNotEquals of a missing pair": (when("StringNotEquals", TENANT_KEY, "acme"), {}, True),
    "StringLike": (when("StringLike", TENANT_KEY, "ac*"), ACME, True),
    "StringLike of a missing pair": (when("StringLike", TENANT_KEY, "*"), {}, False),
    "Null true": (when("Null", TENANT_KEY, "true"), ACME, False),
    "Null false": (when("Null", TENANT_KEY, "false"), ACME, True),
    "ForAllValues of these names": (
        when("ForAllValues:StringEquals", "kms:EncryptionContextKeys", *ACME),
        ACME,
        True,
    ),
    "ForAllValues of more names": (
        when("ForAllValues:StringEquals", "kms:EncryptionContextKeys", *ACME),
        {**ACME, "more": ""},
        False,
    ),
    "ForAllValues of no names": (when("ForAllValues:StringEquals", "kms:EncryptionContextKeys", "a"), {}, True),
    "ForAllValues minds case": (
        when("ForAllValues:StringEquals", "kms:EncryptionContextKeys", "keystow:tenant"),
        {"Keystow:Tenant": "acme"},
        False,
    ),
    "ForAnyValue": (when("ForAnyValue:StringEquals", "kms:EncryptionContextKeys", "keystow:tenant"), ACME, True),
    "ForAnyValue of no names": (when("ForAnyValue:StringEquals", "kms:EncryptionContextKeys", "a"), {}, False),
    "the caller's account": (when("StringEquals", "kms:CallerAccount", PROVIDER_ACCOUNT), ACME, True),
    "the caller's role": (when("ArnEquals", "aws:PrincipalArn", PROVIDER_ROLE), ACME, True),
    "all conditions": (
        policy(Condition={"StringEquals": {TENANT_KEY: "acme", "kms:CallerAccount": "999900001111"}}),
        ACME,
        False,
    ),
}


@pytest.mark.parametrize("case", GENERATE)
async def test_generate_data_key(case: str) -> None:
    """Principal, action, resource and conditions decide; a condition on a pair that is not there does not hold."""
    document, context, expected = GENERATE[case]
    assert await permits(document, context) is expected


async def test_a_deny_overrules_every_allow() -> None:
    """Wherever it stands."""
    allowed = tenant_policy(CUSTOMER_ACCOUNT, "acme")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:GenerateDataKey", "Resource": "*"}
    document = {**allowed, "Statement": [deny, *allowed["Statement"]]}
    assert not await permits(document, ACME)
    assert await permits(document, ACME, "describe_key")


async def test_describe_key_is_granted_apart() -> None:
    """It carries no encryption context, so a condition on one refuses it."""
    granted = tenant_policy(CUSTOMER_ACCOUNT, "acme")
    assert await permits(granted, {}, "describe_key")
    assert not await permits(when("StringEquals", TENANT_KEY, "acme"), {}, "describe_key")
    assert not await permits(denying(Policy.of_key(granted), "DescribeKey"), {}, "describe_key")


async def test_another_account_needs_its_own_iam_too() -> None:
    """A key policy is an offer to the other account, whose IAM must take it; and its administrators stay out."""
    decrypts_only = Policy.of_identity(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}}
    )
    async with faithful_kms() as kms, client_of(kms, PROVIDER) as provider:
        key = kms.create_key("acme")
        await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=ACME)
        kms.principals.add(replace(PROVIDER, iam=(decrypts_only,)))
        with pytest.raises(ClientError, match="no identity-based policy allows the kms:GenerateDataKey action"):
            await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=ACME)
        kms.principals.add(PROVIDER)
        with pytest.raises(ClientError, match="no resource-based policies allow access"):
            await provider.disable_key(KeyId=key.arn)
        stranger = kms.principals.add(administrator("999900001111"))
        async with client_of(kms, stranger) as other:
            with pytest.raises(ClientError, match="no resource-based policies allow access"):
                await other.describe_key(KeyId=key.arn)


async def test_in_its_own_account_a_policy_may_leave_the_decision_to_iam() -> None:
    """A statement for the account's root delegates; one for a principal is enough by itself."""
    nothing = replace(CUSTOMER, iam=())
    async with faithful_kms() as kms, client_of(kms, CUSTOMER) as customer:
        delegated = kms.create_key("acme")
        named = kms.create_key(policy=policy(Principal={"AWS": CUSTOMER.arn}))
        await customer.disable_key(KeyId=delegated.arn)
        kms.principals.add(nothing)
        with pytest.raises(ClientError, match="no identity-based policy allows the kms:EnableKey action"):
            await customer.enable_key(KeyId=delegated.arn)
        await customer.disable_key(KeyId=named.arn)


UNKNOWN: Mapping[str, Document | str] = {
    "no JSON": "{",
    "no object": "[]",
    "no statement": {"Version": "2012-10-17"},
    "old version": {**policy(), "Version": "2008-10-17"},
    "element of the policy": {**policy(), "Statements": []},
    "NotPrincipal": policy(NotPrincipal="*"),
    "NotAction": policy(NotAction="kms:*"),
    "NotResource": policy(NotResource="*"),
    "service principal": policy(Principal={"Service": "s3.amazonaws.com"}),
    "effect": policy(Effect="allow"),
    "action that is no text": policy(Action=[1]),
    "operator": when("StringMatches", TENANT_KEY, "acme"),
    "quantifier": when("ForEach:StringEquals", TENANT_KEY, "acme"),
    "condition key": when("StringEquals", "aws:SourceIp", "127.0.0.1"),
    "several values without a quantifier": when("StringEquals", "kms:EncryptionContextKeys", "a"),
    "policy variable": when("StringEquals", TENANT_KEY, "${aws:PrincipalTag/tenant}"),
}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_what_is_not_known_is_refused(case: str) -> None:
    """By methods and over the wire: no policy is half understood, and the one in force stays."""
    document = UNKNOWN[case]
    text = document if isinstance(document, str) else json.dumps(document)
    async with faithful_kms() as kms, client_of(kms, CUSTOMER) as customer:
        key = kms.create_key("acme")
        before = key.standing.policy
        with pytest.raises(UnknownPolicyError):
            key.put_policy(document)
        with pytest.raises(ClientError) as caught:
            await customer.put_key_policy(KeyId=key.arn, Policy=text)
        assert caught.value.response["Error"]["Code"] == "MalformedPolicyDocumentException"
        assert key.standing.policy is before


async def test_a_policy_is_applied_over_the_wire() -> None:
    """What the customer puts is what decides, and what is read back."""
    async with faithful_kms() as kms, client_of(kms, CUSTOMER) as customer, client_of(kms, PROVIDER) as provider:
        arn = (await customer.create_key())["KeyMetadata"]["Arn"]
        with pytest.raises(ClientError, match="AccessDenied"):
            await provider.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=ACME)
        text = json.dumps(tenant_policy(CUSTOMER_ACCOUNT, "acme"))
        await customer.put_key_policy(KeyId=arn, Policy=text)
        await provider.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=ACME)
        assert (await customer.get_key_policy(KeyId=arn))["Policy"] == text
