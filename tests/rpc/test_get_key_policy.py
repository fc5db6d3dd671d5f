"""GetKeyPolicy through a real channel: what it renders makes a key that registers, and that backups go under."""

import json
from pathlib import Path

import grpc
import pytest

from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF, GetKeyPolicyRequest
from rpc.wire import failure, get, put
from servers.in_process import register
from servers.kms.documents import owner_policy
from servers.kms.principals import CUSTOMER_ACCOUNT, PROVIDER_ROLE
from servers.kms.server import faithful_kms
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

BEGINS = {
    GetKeyPolicyRequest.FORMAT_KEY_POLICY_JSON: "{",
    GetKeyPolicyRequest.FORMAT_CLOUDFORMATION: '{\n  "AWSTemplateFormatVersion"',
    GetKeyPolicyRequest.FORMAT_TERRAFORM: "data ",
    GetKeyPolicyRequest.FORMAT_CONSOLE_STEPS: "A KMS key",
}


async def test_from_the_policy_to_the_backup(tmp_path: Path) -> None:
    """A tenant that nobody registered yet is told what to apply; then it registers, and backs up."""
    async with (
        faithful_kms("us-east-1") as kms,
        serving_on_kms(kms, tmp_path, kms_principal_arn=PROVIDER_ROLE, key_probe_interval=3600) as server,
    ):
        documents = {}
        for style, begins in BEGINS.items():
            request = GetKeyPolicyRequest(tenant_id="acme", data_center="us", format=style)
            documents[style] = (await server.tenants.GetKeyPolicy(request)).document
            assert documents[style].startswith(begins)
        policy = json.loads(documents[GetKeyPolicyRequest.FORMAT_KEY_POLICY_JSON])
        policy["Statement"] += owner_policy(CUSTOMER_ACCOUNT)["Statement"]
        arn = kms.create_key(policy=policy).arn
        await register(server, "acme", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn)
        await put(server, "acme", "key", b"content")
        assert (await get(server, "acme", "key")).data == b"content"
        told = await failure(register(server, "globex", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn))
        assert told.reason == "KMS_KEY_IN_USE"


async def test_without_a_principal(tmp_path: Path) -> None:
    """Only the operator can say as whom the service calls KMS, and by which setting."""
    async with (
        faithful_kms("us-east-1") as kms,
        serving_on_kms(kms, tmp_path, key_probe_interval=3600) as server,
    ):
        request = GetKeyPolicyRequest(
            tenant_id="acme", data_center="us", format=GetKeyPolicyRequest.FORMAT_CONSOLE_STEPS
        )
        told = await failure(server.tenants.GetKeyPolicy(request))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_POLICY_UNAVAILABLE")
    assert "kms_principal_arn" in told.message
