"""Bad requests to RegisterTenant, CheckKey and GetKeyPolicy."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from keystow.v1.tenants_pb2 import (
    KEY_MANAGEMENT_PROVIDER,
    KEY_MANAGEMENT_SELF,
    CheckKeyRequest,
    GetKeyPolicyRequest,
    RegisterTenantRequest,
)
from rpc.rows import BAD_TENANT_IDS, Row, invalid

REGIONS = {"us": "us-east-1", "eu": "eu-west-1", "au": "ap-southeast-2", "ca": "ca-central-1", "uk": "eu-west-2"}

_KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
_ARN = f"arn:aws:kms:us-east-1:111122223333:key/{_KEY}"

# What is no full ARN of one KMS key.
_BAD_ARNS = {
    "no ARN": "my key",
    "bare key id": _KEY,
    "alias": "arn:aws:kms:us-east-1:111122223333:alias/backup",
    "bare alias": "alias/backup",
    "China's partition": _ARN.replace("arn:aws:", "arn:aws-cn:"),
    "GovCloud's partition": _ARN.replace("arn:aws:", "arn:aws-us-gov:"),
    "another service": _ARN.replace(":kms:", ":s3:"),
    "no region": _ARN.replace("us-east-1", ""),
    "no account": _ARN.replace("111122223333", ""),
    "short account": _ARN.replace("111122223333", "1111"),
    "upper-case key id": _ARN.upper(),
    "short key id": _ARN[:-1],
    "trailing newline": _ARN + "\n",
    "leading space": " " + _ARN,
    "two ARNs": f"{_ARN},{_ARN}",
    "64 KiB": _ARN + "a" * (64 << 10),
}


def rows() -> Iterator[Row]:
    """All of them."""
    yield from _fields()
    yield from _check_fields()
    yield from _policy_fields()
    yield from _arns()
    yield from _regions()
    yield Row(
        "RegisterTenant: a key that is not there",
        "RegisterTenant",
        (_request(key_management=KEY_MANAGEMENT_SELF, kms_key_arn=_ARN),),
        grpc.StatusCode.FAILED_PRECONDITION,
        "KMS_KEY_UNUSABLE",
        "wait",
        ("key.describe",),
    )


def _request(**fields: Any) -> RegisterTenantRequest:
    choice: dict[str, Any] = {
        "tenant_id": "refused",
        "key_management": KEY_MANAGEMENT_PROVIDER,
        "data_center": "us",
        "confirm_permanent": True,
    }
    return RegisterTenantRequest(**{**choice, **fields})


def _fields() -> Iterator[Row]:
    def row(case: str, field: str, **fields: object) -> Row:
        return invalid(f"RegisterTenant: {case}", "RegisterTenant", _request(**fields), violations=(field,))

    yield row("not confirmed", "confirm_permanent", confirm_permanent=False)
    yield row("provider-managed with an ARN", "kms_key_arn", kms_key_arn=_ARN)
    yield row("self-managed without an ARN", "kms_key_arn", key_management=KEY_MANAGEMENT_SELF)
    yield row("unspecified key_management", "key_management", key_management=0)
    yield row("unknown key_management", "key_management", key_management=99)
    yield row("long display_name", "display_name", display_name="x" * 201)
    yield row("display_name with a control character", "display_name", display_name="Acme\x1b[31m")
    yield row("negative wait", "wait", wait=Duration(nanos=-1))
    yield row("long wait", "wait", wait=Duration(seconds=300, nanos=1))
    yield row("endless wait", "wait", wait=Duration(seconds=(1 << 63) - 1))
    yield row("no data centre", "data_center", data_center="")
    yield row("unknown data centre", "data_center", data_center="moon")
    yield row("region for a data centre", "data_center", data_center="us-east-1")
    for case, tenant_id in BAD_TENANT_IDS.items():
        yield row(f"tenant id: {case}", "tenant_id", tenant_id=tenant_id)
    nothing = RegisterTenantRequest()
    yield invalid(
        "RegisterTenant: nothing", "RegisterTenant", nothing, violations=("key_management", "confirm_permanent")
    )


def _check_fields() -> Iterator[Row]:
    """A key that fails is an answer of CheckKey; what is no question is not."""

    def row(case: str, field: str, **fields: Any) -> Row:
        question: dict[str, Any] = {"tenant_id": "asking", "kms_key_arn": _ARN, "data_center": "us"}
        request = CheckKeyRequest(**{**question, **fields})
        return invalid(f"CheckKey: {case}", "CheckKey", request, violations=(field,))

    yield row("no ARN", "kms_key_arn", kms_key_arn="")
    yield row("negative wait", "wait", wait=Duration(seconds=-1))
    yield row("long wait", "wait", wait=Duration(seconds=301))
    yield row("no data centre", "data_center", data_center="")
    yield row("unknown data centre", "data_center", data_center="moon")
    for case, tenant_id in BAD_TENANT_IDS.items():
        yield row(f"tenant id: {case}", "tenant_id", tenant_id=tenant_id)


def _policy_fields() -> Iterator[Row]:
    def request(**fields: Any) -> GetKeyPolicyRequest:
        question: dict[str, Any] = {
            "tenant_id": "asking",
            "data_center": "us",
            "format": GetKeyPolicyRequest.FORMAT_TERRAFORM,
        }
        return GetKeyPolicyRequest(**{**question, **fields})

    def row(case: str, field: str, **fields: Any) -> Row:
        return invalid(f"GetKeyPolicy: {case}", "GetKeyPolicy", request(**fields), violations=(field,))

    yield row("unspecified format", "format", format=0)
    yield row("unknown format", "format", format=99)
    yield row("no data centre", "data_center", data_center="")
    for case, tenant_id in BAD_TENANT_IDS.items():
        yield row(f"tenant id: {case}", "tenant_id", tenant_id=tenant_id)
    yield Row(
        "GetKeyPolicy: the local keyring has no policies",
        "GetKeyPolicy",
        (request(),),
        grpc.StatusCode.FAILED_PRECONDITION,
        "KEY_POLICY_UNAVAILABLE",
        "wait",
    )


def _arns() -> Iterator[Row]:
    for case, arn in _BAD_ARNS.items():
        yield _refused(f"RegisterTenant: ARN: {case}", "KMS_KEY_ARN_INVALID", arn, "us")


def _regions() -> Iterator[Row]:
    """All of the matrix but its diagonal, which test_registration.py registers."""
    for data_center, key_region in product(REGIONS, REGIONS.values()):
        if REGIONS[data_center] != key_region:
            arn = _ARN.replace("us-east-1", key_region)
            case = f"RegisterTenant: key in {key_region} for {data_center}"
            yield _refused(case, "KMS_KEY_REGION_MISMATCH", arn, data_center)


def _refused(case: str, reason: str, arn: str, data_center: str) -> Row:
    request = _request(key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn, data_center=data_center)
    code = grpc.StatusCode.INVALID_ARGUMENT
    return Row(case, "RegisterTenant", (request,), code, reason, "none", ("kms_key_arn",))
