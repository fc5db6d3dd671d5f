"""What GetKeyPolicy renders is applied to a KMS that evaluates policies, and read by each format's own tools."""

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import hcl2
import pytest
from botocore.exceptions import ClientError
from cfnlint.api import lint

from keys.trying import ACME, Trying, outcomes
from keystow_service.errors import KeyPolicyUnavailableError
from keystow_service.keys.encryption_context import encryption_context
from keystow_service.keys.key_policy import Format, PolicyCommand, RenderKeyPolicy, terraform
from keystow_service.keys.key_policy.statements import Grant
from keystow_service.model import DataCenter, TenantId
from servers.kms.documents import owner_policy
from servers.kms.policy import Document
from servers.kms.principals import CUSTOMER, CUSTOMER_ACCOUNT, PROVIDER, PROVIDER_ROLE
from servers.kms.sessions import client_of

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient

ROOT = f"arn:aws:iam::{CUSTOMER_ACCOUNT}:root"
CONTEXT = encryption_context(ACME, "tests")


def added_to_the_owners(statements: list[Document]) -> Document:
    """As a customer does with the policy of a key that it has."""
    return {"Version": "2012-10-17", "Statement": [*owner_policy(CUSTOMER_ACCOUNT)["Statement"], *statements]}


def of_template(text: str) -> Document:
    """As CloudFormation makes it in the customer's account."""
    policy: dict[str, Any] = json.loads(text)["Resources"]["Key"]["Properties"]["KeyPolicy"]
    for statement in policy["Statement"]:
        match statement["Principal"]["AWS"]:
            case {"Fn::Sub": template}:
                statement["Principal"]["AWS"] = template.replace("${AWS::AccountId}", CUSTOMER_ACCOUNT)
    return policy


def of_configuration(text: str) -> Document:
    """As Terraform makes it in the customer's account."""
    expression = hcl(text)["resource"]["aws_kms_key"]["policy"]
    [argument] = re.findall(r"^\$\{jsonencode\((.*)\)\}$", expression)
    policy: dict[str, Any] = hcl(f"policy = {argument}\n")["policy"]
    return policy


def of_steps(text: str) -> Document:
    """As a customer pastes it between the brackets of the console's editor."""
    [block] = re.findall(r"\n\n( +\{\n.*\n +\})\n\n", text, re.DOTALL)
    return added_to_the_owners(json.loads(f"[{block}]"))


READ: Mapping[Format, Callable[[str], Document]] = {
    Format.KEY_POLICY_JSON: lambda text: added_to_the_owners(json.loads(text)["Statement"]),
    Format.CLOUDFORMATION: of_template,
    Format.TERRAFORM: of_configuration,
    Format.CONSOLE_STEPS: of_steps,
}


def hcl(text: str) -> dict[str, Any]:
    """Blocks by kind and type, whatever they are called; the customer's account is filled in."""
    account = re.compile(r"\$\{data\.aws_caller_identity\.\w+\.account_id\}")

    def plain(value: Any) -> Any:
        match value:
            case dict():
                return {plain(name): plain(each) for name, each in value.items()}
            case list():
                return [plain(each) for each in value]
            case str() if value.startswith('"'):
                return account.sub(CUSTOMER_ACCOUNT, json.loads(value)).replace("$${", "${").replace("%%{", "%{")
        return value

    found: dict[str, Any] = {}
    for kind, content in plain(hcl2.loads(text)).items():
        found[kind] = content
        if kind in ("data", "resource"):
            found[kind] = {name: body for each in content for name, named in each.items() for body in named.values()}
    return found


@pytest.fixture
def rendered(trying: Trying) -> Callable[[Format], str]:
    """For acme, in the US."""
    render = RenderKeyPolicy(trying.sites, {"us"}, PROVIDER_ROLE, "tests")
    return lambda style: render(PolicyCommand(ACME, "us", style))


Rendered = Callable[[Format], str]


@pytest.mark.parametrize("style", Format)
async def test_a_key_with_the_policy_passes_every_check(trying: Trying, rendered: Rendered, style: Format) -> None:
    """Policy, service and KMS agree: what is rendered is enough, and confines the key to the tenant."""
    key = trying.kms.create_key(policy=READ[style](rendered(style)))
    assert outcomes(await trying.check(key.arn)) == {}
    assert (await trying.register("acme", key.arn)).tenant.key_arn.text == key.arn


@pytest.mark.parametrize("style", Format)
async def test_what_the_service_is_granted(rendered: Rendered, style: Format) -> None:
    """Three operations, on conditions, for one principal; every format says the same."""
    statements = [each for each in READ[style](rendered(style))["Statement"] if each["Principal"]["AWS"] != ROOT]
    assert {each["Principal"]["AWS"] for each in statements} == {PROVIDER_ROLE}
    describe, use = statements
    assert (describe["Action"], use["Action"]) == ("kms:DescribeKey", ["kms:GenerateDataKey", "kms:Decrypt"])
    assert use["Condition"] == {
        "StringEquals": {
            "kms:EncryptionContext:keystow:tenant": "acme",
            "kms:EncryptionContext:keystow:deployment": "tests",
        },
        "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": sorted(CONTEXT)},
    }


REFUSED: Mapping[str, Callable[["KMSClient", str], Any]] = {
    "another tenant": lambda kms, arn: generate(kms, arn, {**CONTEXT, "keystow:tenant": "globex"}),
    "another deployment": lambda kms, arn: generate(kms, arn, {**CONTEXT, "keystow:deployment": "staging"}),
    "no tenant": lambda kms, arn: generate(kms, arn, {"keystow:deployment": "tests"}),
    "no context": lambda kms, arn: generate(kms, arn, {}),
    "a further pair": lambda kms, arn: generate(kms, arn, {**CONTEXT, "more": "pairs"}),
    "the tenant under another name": lambda kms, arn: generate(
        kms, arn, {"Keystow:Tenant": "acme", "keystow:deployment": "tests"}
    ),
    "two names for the tenant": lambda kms, arn: generate(
        kms, arn, {**CONTEXT, "keystow:tenant": "globex", "KEYSTOW:TENANT": "acme"}
    ),
    "Encrypt": lambda kms, arn: kms.encrypt(KeyId=arn, Plaintext=b"text", EncryptionContext=CONTEXT),
    "PutKeyPolicy": lambda kms, arn: kms.put_key_policy(KeyId=arn, Policy=json.dumps(owner_policy(CUSTOMER_ACCOUNT))),
    "DisableKey": lambda kms, arn: kms.disable_key(KeyId=arn),
    "ScheduleKeyDeletion": lambda kms, arn: kms.schedule_key_deletion(KeyId=arn),
}


async def generate(kms: "KMSClient", arn: str, context: Mapping[str, str]) -> None:
    await kms.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=context)


async def test_what_the_service_is_not_granted(trying: Trying, rendered: Rendered) -> None:
    """Its role may use the key in just the context that it sends, and do nothing else with it."""
    arn = trying.kms.create_key(policy=of_template(rendered(Format.CLOUDFORMATION))).arn
    async with client_of(trying.kms, PROVIDER) as kms:
        await generate(kms, arn, CONTEXT)
        for what, call in REFUSED.items():
            with pytest.raises(ClientError) as caught:
                await call(kms, arn)
            assert caught.value.response["Error"]["Code"] == "AccessDeniedException", what


@pytest.mark.parametrize("style", [Format.CLOUDFORMATION, Format.TERRAFORM])
async def test_the_owner_keeps_the_key(trying: Trying, rendered: Rendered, style: Format) -> None:
    """The account that makes the key administers it, by actions that are named one by one, and need not use it."""
    policy = READ[style](rendered(style))
    assert "kms:*" not in json.dumps(policy)
    arn = trying.kms.create_key(policy=policy).arn
    async with client_of(trying.kms, CUSTOMER) as kms:
        await kms.disable_key(KeyId=arn)
        await kms.enable_key(KeyId=arn)
        await kms.rotate_key_on_demand(KeyId=arn)
        await kms.schedule_key_deletion(KeyId=arn)
        await kms.cancel_key_deletion(KeyId=arn)
        await kms.enable_key(KeyId=arn)
        with pytest.raises(ClientError):
            await generate(kms, arn, CONTEXT)
        await kms.put_key_policy(KeyId=arn, Policy=json.dumps(owner_policy(CUSTOMER_ACCOUNT)))
        await generate(kms, arn, CONTEXT)


async def test_the_template(rendered: Rendered) -> None:
    """cfn-lint finds nothing; a deleted stack leaves the key; it rotates, and is made in its region only."""
    text = rendered(Format.CLOUDFORMATION)
    assert lint(text, regions=["us-east-1"]) == []
    assert lint(text.replace("PendingWindowInDays", "PendingDays"), regions=["us-east-1"]) != []
    template = json.loads(text)
    for resource in template["Resources"].values():
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert template["Resources"]["Key"]["Properties"]["EnableKeyRotation"]
    assert template["Resources"]["Alias"]["Properties"]["AliasName"] == "alias/keystow-acme"
    [assertion] = template["Rules"]["Region"]["Assertions"]
    assert assertion["Assert"] == {"Fn::Equals": [{"Ref": "AWS::Region"}, "us-east-1"]}


async def test_the_configuration(rendered: Rendered) -> None:
    """The key cannot be destroyed by Terraform; it rotates, and is made in its region only."""
    resources = hcl(rendered(Format.TERRAFORM))["resource"]
    key = resources["aws_kms_key"]
    assert (key["enable_key_rotation"], key["customer_master_key_spec"]) == (True, "SYMMETRIC_DEFAULT")
    [lifecycle] = key["lifecycle"]
    assert lifecycle["prevent_destroy"]
    [precondition] = lifecycle["precondition"]
    assert precondition["condition"] == '${data.aws_region.keystow_acme.id == "us-east-1"}'
    assert resources["aws_kms_alias"]["name"] == "alias/keystow-acme"


async def test_the_steps(rendered: Rendered) -> None:
    """They name the region, and no principal but the service's; "other AWS accounts" is what they warn of."""
    text = rendered(Format.CONSOLE_STEPS)
    assert "us-east-1" in text
    assert set(re.findall(r"arn:aws:iam\S+?(?=\")", text)) == {PROVIDER_ROLE}
    assert "no other AWS accounts" in text


def test_texts_are_no_templates() -> None:
    """What Terraform would fill in, or end a string at, is a plain character of a name."""
    tenant = TenantId('a"${file("/etc/passwd")}%{ if true }\\b')
    grant = Grant(tenant, "tests", PROVIDER_ROLE, DataCenter("us", "US", "us-east-1"))
    use = of_configuration(terraform.render(grant))["Statement"][-1]
    assert use["Condition"]["StringEquals"]["kms:EncryptionContext:keystow:tenant"] == tenant


async def test_nothing_to_grant_to(trying: Trying) -> None:
    """Without a principal the operator is told what to set; the local keyring has no policies."""
    with pytest.raises(KeyPolicyUnavailableError, match="kms_principal_arn"):
        RenderKeyPolicy(trying.sites, {"us"}, None, "tests")(PolicyCommand(ACME, "us", Format.TERRAFORM))
    local = RenderKeyPolicy(trying.sites, {"us"}, PROVIDER_ROLE, "tests")
    with pytest.raises(KeyPolicyUnavailableError, match="keys create --region eu-west-1 --tenant acme"):
        local(PolicyCommand(ACME, "eu", Format.TERRAFORM))
