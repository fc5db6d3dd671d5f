"""What stands in the log for each kind of record. Names of objects are hashed here: no line holds one."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from keystow_service.adapters.audit.keys import ObjectHashes
from keystow_service.adapters.audit.line import timestamp
from keystow_service.audit import Action, AuditRecord, KeyStateChanged, KeysUsed, KeyUses, KmsAttempt, RpcEnded


def describe(record: AuditRecord, hashes: ObjectHashes) -> tuple[str, Mapping[str, object]]:
    """The event's name, and its fields."""
    match record:
        case RpcEnded():
            return "rpc", _rpc(record, hashes)
        case KmsAttempt():
            return "kms", _kms(record)
        case KeysUsed():
            return "key_uses", {**_action(record.action), "key_uses": _uses(record.key_uses)}
        case KeyStateChanged():
            return "key_state", _key_state(record)
        case _:
            assert_never(record)


def _action(action: Action) -> Mapping[str, object]:
    return {
        "request_id": action.request_id,
        "caller": action.caller,
        "operation": action.operation,
        "tenant": action.tenant_id or "",
    }


def _rpc(record: RpcEnded, hashes: ObjectHashes) -> Mapping[str, object]:
    tenant_id, object_key = record.action.tenant_id, record.object_key
    return {
        **_action(record.action),
        "peer": record.peer,
        "object": hashes.hash(tenant_id, object_key) if tenant_id and object_key else "",
        "code": record.code,
        "reason": record.reason,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "last_plaintext": timestamp(record.last_plaintext) if record.last_plaintext else "",
        "seconds": round(record.seconds, 6),
        "key_uses": _uses(record.key_uses),
    }


def _kms(record: KmsAttempt) -> Mapping[str, object]:
    return {
        **_action(record.action),
        "kms_operation": record.kms_operation,
        "kms_key": record.key_arn.text,
        "context": dict(record.context),
        "kms_request_id": record.kms_request_id,
        "reason": record.reason,
        "seconds": round(record.seconds, 6),
    }


def _key_state(record: KeyStateChanged) -> Mapping[str, object]:
    return {
        **_action(record.action),
        "key_state": record.key_state.value,
        "previous": record.previous.value if record.previous else "",
        "reason": record.reason,
        "kms_request_id": record.kms_request_id,
        "deletion_time": timestamp(record.deletion_time) if record.deletion_time else "",
    }


def _uses(uses: Sequence[KeyUses]) -> Sequence[Mapping[str, object]]:
    return [
        {
            "use": each.use.value,
            "kms_key": each.key_arn.text,
            "count": each.count,
            "cached": each.cached,
            "kms_request_ids": each.kms_request_ids,
        }
        for each in uses
    ]
