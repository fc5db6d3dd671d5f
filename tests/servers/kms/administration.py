"""What a key's owner does over the wire, with their own credentials. Existence and permission were checked before."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from servers.kms.conditions import UnknownPolicyError
from servers.kms.documents import owner_policy
from servers.kms.inventory import Inventory
from servers.kms.keys import Key, Kind
from servers.kms.policy import Policy
from servers.kms.refusal import Refusal
from servers.kms.states import State

_Operation: TypeAlias = Callable[[Inventory, Key, Mapping[str, Any]], dict[str, Any]]


def create_key(inventory: Inventory, region: str, account: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html."""
    kind = Kind(
        spec=body.get("KeySpec", "SYMMETRIC_DEFAULT"),
        usage=body.get("KeyUsage", "ENCRYPT_DECRYPT"),
        origin=body.get("Origin", "AWS_KMS"),
        multi_region=body.get("MultiRegion", False),
    )
    policy = _policy(body["Policy"]).text if "Policy" in body else owner_policy(account)
    return describe_key(inventory.create(region, account, kind, policy))


def replicate_key(inventory: Inventory, key: Key, body: Mapping[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_ReplicateKey.html. It is not Creating for a while."""
    policy = _policy(body["Policy"]).text if "Policy" in body else owner_policy(key.account)
    replica = inventory.replicate(key, body["ReplicaRegion"], policy)
    return {"ReplicaKeyMetadata": describe_key(replica)["KeyMetadata"], "ReplicaPolicy": policy}


def describe_key(key: Key) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html."""
    kind, standing = key.kind, key.standing
    metadata: dict[str, Any] = {
        "AWSAccountId": key.account,
        "KeyId": key.key_id,
        "Arn": key.arn,
        "CreationDate": key.created_at.timestamp(),
        "Enabled": key.state is State.ENABLED,
        "Description": "",
        "KeyUsage": kind.usage,
        "KeyState": key.state.value,
        "Origin": kind.origin,
        "KeyManager": kind.manager,
        "CustomerMasterKeySpec": kind.spec,
        "KeySpec": kind.spec,
        "MultiRegion": kind.multi_region,
    }
    if kind.spec == "SYMMETRIC_DEFAULT":
        metadata["EncryptionAlgorithms"] = ["SYMMETRIC_DEFAULT"]
    if key.state is State.PENDING_DELETION and key.deletion_date is not None:
        metadata["DeletionDate"] = key.deletion_date.timestamp()
    if key.state is State.PENDING_REPLICA_DELETION:
        metadata["PendingDeletionWindowInDays"] = standing.window.days
    if kind.origin == "EXTERNAL" and key.state is not State.PENDING_IMPORT:
        expires = standing.valid_to is not None
        metadata["ExpirationModel"] = "KEY_MATERIAL_EXPIRES" if expires else "KEY_MATERIAL_DOES_NOT_EXPIRE"
        if standing.valid_to is not None:
            metadata["ValidTo"] = standing.valid_to.timestamp()
    if kind.origin in ("AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"):
        metadata["CustomKeyStoreId"] = "cks-1234567890abcdef0"
    if kind.multi_region:
        metadata["MultiRegionConfiguration"] = _regions(key)
    return {"KeyMetadata": metadata}


def _regions(key: Key) -> dict[str, Any]:
    primary = key.primary or key
    return {
        "MultiRegionKeyType": "PRIMARY" if key is primary else "REPLICA",
        "PrimaryKey": {"Arn": primary.arn, "Region": primary.region},
        "ReplicaKeys": [
            {"Arn": each.arn, "Region": each.region}
            for each in primary.replicas.values()
            if each.state is not State.DELETED
        ],
    }


def schedule_key_deletion(key: Key, body: Mapping[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_ScheduleKeyDeletion.html."""
    days = body.get("PendingWindowInDays", 30)
    date = key.schedule_deletion(days)
    answer = {"KeyId": key.arn, "KeyState": key.state.value, "PendingWindowInDays": days}
    return answer if date is None else {**answer, "DeletionDate": date.timestamp()}


def put_key_policy(key: Key, body: Mapping[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_PutKeyPolicy.html."""
    key.put_policy(_policy(body["Policy"]).text)
    return {}


def get_key_policy(key: Key) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyPolicy.html."""
    return {"Policy": key.standing.policy.text, "PolicyName": "default"}


def _policy(text: str) -> Policy:
    try:
        return Policy.of_key(text)
    except UnknownPolicyError as error:
        raise Refusal("MalformedPolicyDocumentException", str(error)) from None


def _alias(inventory: Inventory, key: Key, body: Mapping[str, Any], *, again: bool) -> dict[str, Any]:
    inventory.name(body["AliasName"], key, again=again)
    return {}


def _act(act: Callable[[Key], None], *, names_key: bool = False) -> _Operation:
    """An operation that needs no more than the key."""

    def operation(_inventory: Inventory, key: Key, _body: Mapping[str, Any]) -> dict[str, Any]:
        act(key)
        return {"KeyId": key.arn} if names_key else {}

    return operation


_OPERATIONS: Mapping[str, _Operation] = MappingProxyType(
    {
        "DescribeKey": lambda _, key, __: describe_key(key),
        "GetKeyPolicy": lambda _, key, __: get_key_policy(key),
        "PutKeyPolicy": lambda _, key, body: put_key_policy(key, body),
        "EnableKey": _act(Key.enable),
        "DisableKey": _act(Key.disable),
        "ScheduleKeyDeletion": lambda _, key, body: schedule_key_deletion(key, body),
        "CancelKeyDeletion": _act(Key.cancel_deletion, names_key=True),
        "RotateKeyOnDemand": _act(Key.rotate, names_key=True),
        "DeleteImportedKeyMaterial": _act(Key.delete_material),
        "ReplicateKey": replicate_key,
        "CreateAlias": partial(_alias, again=False),
        "UpdateAlias": partial(_alias, again=True),
    }
)


def administer(inventory: Inventory, operation: str, key: Key, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to an operation on a key, other than its use. Raises Refusal."""
    if operation not in _OPERATIONS:
        raise Refusal("UnknownOperationException", f"This KMS does not know {operation}.")
    return _OPERATIONS[operation](inventory, key, body)
