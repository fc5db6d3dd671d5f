"""``keystow-service reap``: one pass of the reaper over all data centres, for those who want to see or to schedule it.

Each upload that is removed, or would be, is a line of output; how many are kept, and what went wrong, is told on
standard error. Exit codes: 0 all went well; 1 something could not be listed or removed; 2 bad settings.
"""

import asyncio
import json
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from keystow_service import log
from keystow_service.adapters.posix_files import is_missing
from keystow_service.cli_config import ConfigOption, settings_in_force
from keystow_service.errors import KeystowError
from keystow_service.settings import Settings

if TYPE_CHECKING:  # imports much, and only this command needs it
    from keystow_service.objects.reap import Finding

EXIT_FAILURE = 1

DryRun = Annotated[bool, typer.Option("--dry-run", help="Remove nothing: say what would be.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: one object a line.")]


def reap(*, config: ConfigOption = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove unfinished uploads that nobody can go on with any more. A running server does so by itself."""
    settings = settings_in_force(config)
    log.configure(settings.log_format)
    went_well = [
        asyncio.run(_reap(settings, data_center, dry_run=dry_run, as_json=as_json))
        for data_center in settings.data_centers
    ]
    if not all(went_well):
        raise typer.Exit(EXIT_FAILURE)


async def _reap(settings: Settings, data_center: str, *, dry_run: bool, as_json: bool) -> bool:
    """One data centre; whether all went well."""
    from keystow_service.adapters.clock import SystemClock  # noqa: PLC0415 - as above
    from keystow_service.app import open_store  # noqa: PLC0415 - as above
    from keystow_service.objects.reap import Fate, ReapUploads  # noqa: PLC0415 - as above

    if settings.data_centers[data_center].bucket is None and is_missing(settings.store_path(data_center)):
        return _complain(data_center, f"There is no store in {settings.store_path(data_center)}.")
    clock = SystemClock()
    fates: Counter[Fate] = Counter()
    try:
        async with (
            open_store(settings, data_center, clock) as store,
            aclosing(ReapUploads(clock)(store, dry_run=dry_run)) as findings,
        ):
            async for finding in findings:
                fates[finding.fate] += 1
                if finding.failure is not None:
                    _complain(data_center, f"{finding.upload.name or finding.upload.id}: {finding.failure.message}")
                elif finding.fate in (Fate.DUE, Fate.REMOVED):
                    typer.echo(_as_json(data_center, finding) if as_json else _line(data_center, finding))
    except KeystowError as error:
        return _complain(data_center, error.message)
    if fates[Fate.UNDATED]:
        _complain(data_center, f"{fates[Fate.UNDATED]} kept, because the store does not know when they began")
    typer.echo(f"{data_center}: {fates[Fate.KEPT]} kept, because their time is not over", err=True)
    return not fates[Fate.FAILED]


def _complain(data_center: str, message: str) -> bool:
    """Always False."""
    typer.echo(f"keystow-service: {data_center}: {message}", err=True)
    return False


def _line(data_center: str, finding: "Finding") -> str:
    """Names are printable; a plain upload on the local store has none."""
    upload = finding.upload
    return f"{finding.fate.value}  {data_center}  {upload.begun:%Y-%m-%d %H:%M} UTC  {upload.name or upload.id}"


def _as_json(data_center: str, finding: "Finding") -> str:
    from keystow_service.objects.names import owner_of  # noqa: PLC0415 - as above

    upload = finding.upload
    tenant_id, key = owner_of(upload.name) or (None, None)
    return json.dumps(
        {
            "fate": finding.fate.value,
            "data_center": data_center,
            "tenant_id": tenant_id,
            "key": key,
            "store_upload_id": upload.id,
            "begun": upload.begun.isoformat(),
        }
    )
