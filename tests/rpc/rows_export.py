"""Bad requests to Export."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc

from keystow.v1 import storage_pb2
from keystow.v1.storage_pb2 import (
    ARCHIVE_FORMAT_TAR,
    ARCHIVE_FORMAT_ZIP,
    ERROR_POLICY_STOP,
    ExportRequest,
    ObjectKeys,
)
from keystow_service.envelope import checkpoint
from keystow_service.envelope.checkpoint import ExportPosition
from keystow_service.model import ANONYMOUS, Caller, DataKey, ObjectKey, TenantId
from keystow_service.objects.export.command import ArchiveFormat, ErrorPolicy, ExportCommand, Keys, Prefix
from rpc.rows import BAD_KEYS, BAD_TENANT_IDS, TENANT, Row, invalid, tenant_not_found


def rows() -> Iterator[Row]:
    """All of them."""
    for case, tenant in BAD_TENANT_IDS.items():
        message = ExportRequest(tenant_id=tenant, prefix="")
        yield invalid(f"Export: tenant id: {case}", "Export", message, violations=("tenant_id",))
    yield tenant_not_found("Export", ExportRequest(tenant_id="nobody", prefix=""))
    yield _invalid("no selection", "selection")
    yield _invalid("no keys", "keys", keys=ObjectKeys())
    yield _invalid("4,001 keys", "keys", keys=ObjectKeys(keys=[f"{number}" for number in range(4001)]))
    yield _invalid("a key twice", "keys", keys=ObjectKeys(keys=["a", "b", "a"]))
    for case, key in BAD_KEYS.items():
        yield _invalid(f"keys: {case}", "keys", keys=ObjectKeys(keys=["a", key]))
        if key:  # an empty prefix exports everything
            yield _invalid(f"prefix: {case}", "prefix", prefix=key)
    for number in (3, -1, (1 << 31) - 1):
        yield _invalid(f"format {number}", "format", prefix="", format=storage_pb2.ArchiveFormat.ValueType(number))
        yield _invalid(f"on_error {number}", "on_error", prefix="", on_error=storage_pb2.ErrorPolicy.ValueType(number))
    yield _invalid(
        "zip with a token", "checkpoint_token", prefix="", format=ARCHIVE_FORMAT_ZIP, checkpoint_token=b"token"
    )
    yield _invalid("everything", "selection", "format", "on_error", format=_UNKNOWN_FORMAT, on_error=_UNKNOWN_POLICY)
    for case, token in _bad_tokens().items():
        message = ExportRequest(tenant_id=TENANT, prefix="", checkpoint_token=token)
        code = grpc.StatusCode.INVALID_ARGUMENT
        yield Row(f"Export: token: {case}", "Export", (message,), code, "CHECKPOINT_TOKEN_INVALID", "restart")
    missing = ExportRequest(tenant_id=TENANT, keys=ObjectKeys(keys=["nothing"]))
    yield Row("Export: no such object", "Export", (missing,), grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND", "none")


_UNKNOWN_FORMAT, _UNKNOWN_POLICY = storage_pb2.ArchiveFormat.ValueType(9), storage_pb2.ErrorPolicy.ValueType(9)


def _invalid(case: str, *violations: str, **fields: Any) -> Row:
    defaults = {"format": ARCHIVE_FORMAT_TAR, "on_error": ERROR_POLICY_STOP}
    message = ExportRequest(tenant_id=TENANT, **{**defaults, **fields})
    return invalid(f"Export: {case}", "Export", message, violations=violations)


def _bad_tokens() -> dict[str, bytes]:
    """Tokens that keystow did not give out for an export of all of TENANT's objects."""
    ours = ExportCommand(ANONYMOUS, TenantId(TENANT), Prefix(""))
    others = {
        "another tenant": replace(ours, tenant_id=TenantId("other")),
        "another prefix": replace(ours, selection=Prefix("a")),
        "keys": replace(ours, selection=Keys((ObjectKey("a"),))),
        "another policy": replace(ours, on_error=ErrorPolicy.CONTINUE),
        "another format": replace(ours, format=ArchiveFormat.ZIP),
        "another caller": replace(ours, caller=Caller("somebody else")),
    }
    of_no_key = _token(ours, b"wrapped by nobody")
    return {
        "one byte": b"\x01",
        "random bytes": hashlib.shake_256(b"random").digest(300),
        "longer than any": hashlib.shake_256(b"long").digest(100_000),
        "a data key that KMS does not know": of_no_key,
        "no data key": _token(ours, b""),
        "a data key that is too long": _token(ours, bytes(1025)),
        "cut in its data key": of_no_key[:70],
        "cut before its seal": of_no_key[:84],
        **{f"of {case}": _token(command, b"wrapped") for case, command in others.items()},
    }


def _token(command: ExportCommand, wrapped: bytes) -> bytes:
    """Well-formed, but sealed by somebody else."""
    return checkpoint.seal(ExportPosition(), command.scope(), DataKey(bytes(32), wrapped), bytes)
