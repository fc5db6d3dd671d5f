"""Audit logs for tests, written by the real adapter."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from keystow_service.adapters.audit.keys import AuditFiles
from keystow_service.adapters.audit.line import digest
from keystow_service.adapters.audit.log import AuditPolicy, FileAuditLog, open_audit_log
from keystow_service.adapters.audit.writer import WriterPolicy
from keystow_service.adapters.clock import SystemClock
from keystow_service.audit import Action, AuditRecord, KeyUse, KeyUses, KmsAttempt, RpcEnded
from keystow_service.model import KeyArn, TenantId
from keystow_service.ports import Clock

ARN = KeyArn.parse("arn:aws:kms:us-east-1:111122223333:key/12345678-1234-1234-1234-123456789012")
TENANT = TenantId("acme")


def open_log(
    place: Path | AuditFiles, clock: Clock | None = None, policy: AuditPolicy | None = None
) -> AbstractAsyncContextManager[FileAuditLog]:
    """A log in this directory."""
    files = AuditFiles(place) if isinstance(place, Path) else place
    return open_audit_log(files, clock or SystemClock(), policy or AuditPolicy(), {"version": "test"})


def small_files(size: int) -> AuditPolicy:
    """So that a few records make several files."""
    return AuditPolicy(refuse=True, writer=WriterPolicy(file_size=size))


def action(number: int = 0) -> Action:
    """Of the call with this number."""
    return Action(f"request-{number}", "connector", "Put", TENANT)


def rpc(number: int = 0, *, object_key: str = "key") -> RpcEnded:
    """The outcome of a Put."""
    uses = (KeyUses(ARN, KeyUse.SEAL, 1, 1, ("kms-request",)),)
    return RpcEnded(action(number), "ipv4:127.0.0.1:1", object_key, "OK", "", 100, 0, None, 0.25, uses)


def kms(number: int = 0) -> KmsAttempt:
    """A data key made."""
    return KmsAttempt(
        action(number), "GenerateDataKey", ARN, {"keystow:tenant": TENANT}, f"kms-request-{number}", "", 0.125
    )


async def write(directory: Path, records: Sequence[AuditRecord], policy: AuditPolicy | None = None) -> None:
    """A log of these, closed. One by one, so that files are full where they can be."""
    async with open_log(directory, policy=policy) as log:
        for record in records:
            log.record(record)
            await log.durable()


def write_now(directory: Path, count: int, policy: AuditPolicy | None = None) -> None:
    """For tests without a loop of their own."""
    asyncio.run(write(directory, [rpc(number) for number in range(count)], policy))


def files_of(directory: Path) -> Sequence[Path]:
    """In the order of writing."""
    return sorted(directory.glob("*.jsonl"))


def lines_of(*files: Path) -> Sequence[bytes]:
    """All lines, as they stand."""
    return [line for file in files for line in file.read_bytes().splitlines()]


def entries_of(directory: Path, *events: str) -> Sequence[Mapping[str, Any]]:
    """All lines, or those of some events, read."""
    found = [entry for file in files_of(directory) for entry in entries_in(file)]
    return [entry for entry in found if not events or entry["event"] in events]


def entries_in(file: Path) -> Sequence[Mapping[str, Any]]:
    """The lines of one file, read."""
    return [json.loads(line) for line in lines_of(file)]


def check_chain(lines: Sequence[bytes]) -> None:
    """As docs/audit.md says: each names the line before by its SHA-256, and counts on."""
    previous = "0" * 64
    for number, line in enumerate(lines, start=1):
        entry = json.loads(line)
        assert (entry["seq"], entry["prev"]) == (number, previous)
        previous = digest(line)
