"""keystow export."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Annotated

import typer

from keystow_client.cli.addresses import ObjectAddress
from keystow_client.cli.exits import ExitCode
from keystow_client.cli.output import Output, describe, human_size
from keystow_client.cli.partial_archive import PartialArchive, Selection
from keystow_client.cli.progress import bars
from keystow_client.cli.session import Session, command
from keystow_client.cli.standard_output import StandardOutput
from keystow_client.errors import IntegrityError, KeystowError, Recovery
from keystow_client.export import CheckpointListener
from keystow_client.export_models import ArchiveFormat, ErrorPolicy, ExportCheckpoint, ExportEntry, ExportSummary
from keystow_client.put_stream import Progress
from keystow_client.threads import OwnThread

STANDARD = "-"


@dataclass(frozen=True, slots=True)
class Export:
    """What to export, whatever it is written to."""

    session: Session
    address: ObjectAddress
    keys: Sequence[str] | None
    archive_format: ArchiveFormat
    on_error: ErrorPolicy
    progress: Progress
    thread: OwnThread

    async def to(
        self,
        dest: Path | FileIO,
        *,
        overwrite: bool = True,
        resume_from: ExportCheckpoint | None = None,
        on_checkpoint: CheckpointListener | None = None,
    ) -> ExportSummary:
        """Have the client do it."""
        return await self.session.client.export(
            self.address.tenant,
            dest,
            prefix=self.address.key,
            keys=self.keys,
            archive_format=self.archive_format,
            on_error=self.on_error,
            resume_from=resume_from,
            on_entry=partial(_tell, self.session.output, self.address.tenant),
            on_checkpoint=on_checkpoint,
            overwrite=overwrite,
            progress=self.progress,
            thread=self.thread,
        )


@command
async def export(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="TENANT[:PREFIX]", help="Whose objects, and which.", show_default=False)
    ],
    *,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE", help="The archive; - is standard output.", show_default=False),
    ],
    archive_format: Annotated[
        ArchiveFormat, typer.Option("--format", help="A tar archive goes on after interruptions.")
    ] = ArchiveFormat.TAR,
    on_error: Annotated[
        ErrorPolicy, typer.Option("--on-error", help="Stop at a damaged object, or leave it out.")
    ] = ErrorPolicy.STOP,
    keys_from: Annotated[
        str, typer.Option("--keys-from", metavar="FILE", help="Only these keys, one a line; - is standard input.")
    ] = "",
    go_on: Annotated[bool, typer.Option("--continue", help="Go on with what an interrupted export has left.")] = False,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Replace FILE, or an unfinished export to it, if it is there.")
    ] = False,
) -> ExitCode:
    """Export many objects as one archive.

    FILE appears once the archive is whole. Until then FILE.keystow-part grows beside it, and FILE.keystow-checkpoint
    says how --continue goes on with it, even after this command was killed; a zip archive cannot be continued. Standard
    output gets each byte once, and the exit code says whether they are all.

    With --on-error continue, objects that cannot be exported are reported, and the exit code is 9. Prints FILE.
    """
    address = ObjectAddress.parse(target if ":" in target else f"{target}:")
    _check(address, output, archive_format, keys_from, go_on=go_on)
    with OwnThread() as thread, bars(session.output) as shown, shown.bar(str(address), None) as progress:
        keys = await thread.run(partial(_read_keys, keys_from)) if keys_from else None
        wanted = Export(session, address, keys, archive_format, on_error, progress, thread)
        if output == STANDARD:
            summary = await wanted.to(StandardOutput())
        elif archive_format is ArchiveFormat.ZIP:
            summary = await wanted.to(Path(output), overwrite=force)
        else:
            summary = await _in_parts(wanted, Path(output), go_on=go_on, overwrite=force)
    if output != STANDARD:
        session.output.line(output, {**describe(summary), "path": output})
    if summary.failed_count or not summary.object_count or sys.stderr.isatty():  # a mistyped prefix selects nothing
        objects = "1 object" if summary.object_count == 1 else f"{summary.object_count} objects"
        failed = f"; {summary.failed_count} failed" if summary.failed_count else ""
        session.output.note(f"{objects} exported, {human_size(summary.total_size)}{failed}")
    return ExitCode.OK if summary.complete else ExitCode.INCOMPLETE


def _check(address: ObjectAddress, output: str, archive_format: ArchiveFormat, keys_from: str, *, go_on: bool) -> None:
    """Raises typer.BadParameter for what contradicts itself."""
    if keys_from and address.key:
        raise typer.BadParameter(f"either a prefix or --keys-from: write {address.tenant}")
    if go_on and output == STANDARD:
        raise typer.BadParameter("--continue needs the FILE that an export was interrupted on")
    if go_on and archive_format is ArchiveFormat.ZIP:
        raise typer.BadParameter("a zip archive cannot be continued: leave --continue out, or use --format tar")
    if output != STANDARD and Path(output).is_dir():
        raise typer.BadParameter(f"{output!r} is a directory: write the archive's name as well")
    if output == STANDARD and sys.stdout.isatty():
        raise typer.BadParameter("an archive is nothing for a terminal: write -o FILE")


def _read_keys(path: str) -> list[str]:
    data = sys.stdin.buffer.read() if path == STANDARD else Path(path).read_bytes()
    try:
        keys = [line for line in data.decode().split("\n") if line]
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise typer.BadParameter(f"line {line} is not valid UTF-8, as keys are", param_hint="--keys-from") from None
    if not keys:
        raise typer.BadParameter("there is no key in it", param_hint="--keys-from")
    return keys


def _tell(output: Output, tenant: str, entry: ExportEntry) -> None:
    if entry.error is not None:
        output.failure(f"{tenant}:{entry.key}", entry.error)


async def _in_parts(export: Export, path: Path, *, go_on: bool, overwrite: bool) -> ExportSummary:
    selection = Selection.of(export.address.tenant, export.address.key, export.keys, export.on_error)
    archive = PartialArchive(path, selection, overwrite=overwrite)
    try:
        await export.thread.run(archive.go_on if go_on else archive.begin)
        try:
            summary = await export.to(archive.file, resume_from=archive.checkpoint, on_checkpoint=archive.keep)
            await export.thread.run(archive.commit)
        except (KeystowError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(archive.part)
            if not archive.is_empty:
                error.add_note(f"{archive.part} holds what has come: {_what_helps(error)}")
            raise
    finally:
        await asyncio.shield(export.thread.run(archive.close))
    return summary


def _what_helps(error: KeystowError | OSError) -> str:
    match error:
        case KeystowError(reason="CHECKPOINT_TOKEN_INVALID") | IntegrityError(recovery=Recovery.NONE):
            return "--force begins anew"
        case KeystowError(recovery=Recovery.NONE) if "objectKey" in error.metadata:
            return "--continue meets this object again; --force --on-error continue begins anew, and leaves it out"
    return "--continue goes on with it"
