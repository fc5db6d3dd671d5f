"""``keystow-service audit``: what auditors and operators do with the audit log. docs/audit.md is for them.

Exit codes: 0 nothing is wrong; 1 something is; 2 bad input, or a file that cannot be read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keystow_service.adapters.audit.anchors import Anchors
from keystow_service.adapters.audit.cloudtrail import cloudtrail_files
from keystow_service.adapters.audit.finding import Finding
from keystow_service.adapters.audit.keys import (
    AuditError,
    load_object_hashes,
    load_public_key,
    load_signing_key,
    public_pem,
)
from keystow_service.adapters.audit.reconcile import Reconciliation, Window
from keystow_service.adapters.audit.running import running_writers
from keystow_service.adapters.audit.source import files_in
from keystow_service.adapters.audit.verify import verify as findings_in
from keystow_service.cli_config import ConfigOption, refuse, settings_in_force
from keystow_service.progress_line import ProgressLine
from keystow_service.settings import Settings

EXIT_WRONG = 1
_PRINCIPAL = re.compile(r"[0-9]{12}|arn:[a-z-]+:(iam|sts)::[0-9]{12}:\S+")

audit = typer.Typer(
    name="audit",
    help="Check the audit log, and look things up in it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="Audit files, compressed or not, or directories. [default: the server's]"),
]
PublicKeys = Annotated[
    list[Path] | None,
    typer.Option("--public-key", help="As `audit public-key` prints it; repeatable. [default: the server's]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")]
Tenant = Annotated[str, typer.Argument(metavar="TENANT")]


@audit.command()
def verify(
    *,
    files: Files = None,
    public_key: PublicKeys = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(help="Logs of the server, kept elsewhere: the checkpoints in them must be there; repeatable."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Older files, and files of other servers, need not be there.")
    ] = False,
    ended: Annotated[
        bool,
        typer.Option(
            "--ended",
            help="Nobody writes these files any more: a chain without its end is wrong, unless others saw it so. "
            "In the server's own directory that is seen without.",
        ),
    ] = False,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """Find what was deleted, altered, reordered, cut off or forked."""
    with _explained():
        settings = settings_in_force(config)
        chosen = _audit_files(files, settings)
        directory = settings.audit_files.directory
        own = [path for path in files or [directory] if path.resolve() == directory.resolve()]
        keys = _public_keys(public_key, config)
        kept = Anchors(anchors or ())
        with ProgressLine(2 * sum(path.stat().st_size for path in chosen)) as progress:
            found = findings_in(
                chosen,
                keys,
                anchors=kept,
                partial=partial,
                running=running_writers(directory) if own else frozenset(),
                ended=frozenset(chosen if ended else files_in(own)),
                progress=progress.add,
            )
            wrong, notes = _print(found, progress, as_json=as_json)
    if as_json:
        summary = {"files": len(chosen), "anchors": kept.count, "wrong": wrong, "notes": notes}
        typer.echo(json.dumps({"summary": summary}))
    else:
        held = f", {kept.count} checkpoints of --anchors" if anchors else ""
        typer.echo(f"{len(chosen)} files{held}: {wrong or 'nothing'} wrong" + (f", {notes} to note" if notes else ""))
    if wrong:
        raise typer.Exit(EXIT_WRONG)


@audit.command()
def reconcile(
    *,
    files: Files = None,
    cloudtrail: Annotated[
        list[Path], typer.Option(help="CloudTrail log files, compressed or not, or directories of them; repeatable.")
    ],
    principal: Annotated[
        list[str] | None,
        typer.Option(
            help="The role that the service runs as, by ARN, or its account; repeatable. "
            "[default: the setting kms_principal_arn, or whoever made the requests that are in both]"
        ),
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="UTC. What is missing before is not told.")] = None,
    until: Annotated[datetime | None, typer.Option(help="UTC. Nor is what is missing from then on.")] = None,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """Find requests to KMS in CloudTrail that the server did not make. Verify the audit log first."""
    with _explained():
        settings = settings_in_force(config)
        ours = _audit_files(files, settings)
        theirs = cloudtrail_files(cloudtrail)
        if not theirs:
            raise AuditError(f"There are no *.json or *.json.gz files in {' or '.join(map(str, cloudtrail))}.")
        for each in principal or ():
            if _PRINCIPAL.fullmatch(each) is None:
                raise AuditError(
                    f"--principal {each} is neither the ARN of a role or user, nor an account's 12 digits."
                )
        known = principal or ([settings.kms_principal_arn] if settings.kms_principal_arn else [])
        both = Reconciliation(Window(_utc(since), _utc(until)), set(known))
        with ProgressLine(sum(path.stat().st_size for path in (*ours, *theirs))) as progress:
            found = chain(
                both.read_audit(ours, progress.add), both.read_cloudtrail(theirs, progress.add), both.findings()
            )
            wrong, notes = _print(found, progress, as_json=as_json)
    if as_json:
        summary = {
            "both": both.both,
            "wrong": wrong,
            "notes": notes,
            "others": both.others,
            "uncovered": both.uncovered,
        }
        typer.echo(json.dumps({"summary": {**summary, "principals": sorted(both.principals)}}))
    else:
        typer.echo(f"{both.both} requests to KMS are in both: {wrong or 'nothing'} wrong, {notes} to note")
        typer.echo(f"of keystow: {', '.join(sorted(both.principals)) or 'nobody known'}; {both.others} by others")
        if both.uncovered:
            typer.echo(f"{both.uncovered} in the audit log are about keys that these CloudTrail files do not tell of")
    if wrong:
        raise typer.Exit(EXIT_WRONG)


@audit.command("public-key")
def public_key_command(config: ConfigOption = None) -> None:
    """Print the key that the log's checkpoints are verified with, as PEM."""
    with _explained():
        typer.echo(public_pem(load_signing_key(settings_in_force(config).audit_files).public), nl=False)


@audit.command("object-hash")
def object_hash(
    *,
    tenant: Tenant,
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="Keys of objects.")],
    config: ConfigOption = None,
) -> None:
    """Print how the log names objects of a tenant, a line for each."""
    with _explained():
        hashes = load_object_hashes(settings_in_force(config).audit_files)
    for each in key:
        typer.echo(hashes.hash(tenant, each))


@audit.command("tenant-hash-key")
def tenant_hash_key(*, tenant: Tenant, config: ConfigOption = None) -> None:
    """Print the key under which a tenant's object keys are hashed, for that tenant's own auditors: hexadecimal."""
    with _explained():
        typer.echo(load_object_hashes(settings_in_force(config).audit_files).tenant_key(tenant).hex())


def _audit_files(files: Sequence[Path] | None, settings: Settings) -> Sequence[Path]:
    """Those that are named, or the server's. That nothing is wrong with nothing would mislead."""
    chosen = files_in(files or [settings.audit_files.directory])
    if not any(path.stat().st_size for path in chosen):
        raise AuditError("There are no audit files there." if not chosen else "The audit files there are all empty.")
    return chosen


def _public_keys(paths: Sequence[Path] | None, config: Path | None) -> Sequence[Ed25519PublicKey]:
    if paths:
        return [load_public_key(path) for path in paths]
    try:
        return [load_signing_key(settings_in_force(config).audit_files).public]
    except AuditError as error:
        raise AuditError(f"{error} To verify a log elsewhere, name its --public-key.") from None


def _utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _print(found: Iterable[Finding], progress: ProgressLine, *, as_json: bool) -> tuple[int, int]:
    """As they come; how many are wrong, and how many are notes."""
    wrong = notes = 0
    for finding in found:
        if finding.is_note:
            notes += 1
        else:
            wrong += 1
        progress.clear()
        typer.echo(json.dumps(_as_json(finding)) if as_json else str(finding))
    return wrong, notes


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "wrong": not finding.is_note,
        "text": finding.text,
        "writer": finding.writer,
        "file": None if finding.file is None else str(finding.file),
        "line": finding.line or None,
    }


@contextmanager
def _explained() -> Iterator[None]:
    """What went wrong, in words, on standard error."""
    try:
        yield
    except AuditError as error:
        refuse([str(error)])
    except OSError as error:
        refuse([f"{error.filename} cannot be read: {error.strerror}"])
