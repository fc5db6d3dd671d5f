"""``keystow-service tenants``: what the registry knows beyond what the API tells.

Exit codes: 1 the registry does not answer or knows no such tenant, 2 bad input.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from keystow_service import log
from keystow_service.cli_config import ConfigOption, settings_in_force
from keystow_service.errors import KeystowError
from keystow_service.model import KeyManagement, KeyObservation, TenantId

tenants = typer.Typer(
    name="tenants",
    help="Look into the tenant registry.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@tenants.callback()
def _group() -> None:
    """Look into the tenant registry."""


@tenants.command("key-history")
def key_history(
    *,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> None:
    """Every change of state of a tenant's own key that a server has seen, oldest first."""
    settings = settings_in_force(config)
    log.configure(settings.log_format)  # standard output is for results
    if settings.registry_is_missing:
        where = "name the server's settings with --config or KEYSTOW_DATA_DIR"
        _fail(f"There is no registry {settings.registry_path}: {where}.")
    try:
        key_management, changes = asyncio.run(_changes(settings.registry_in_force(), TenantId(tenant)))
    except KeystowError as error:
        _fail(error.message)
    for seen in changes:
        typer.echo(json.dumps(_as_json(seen)) if as_json else _line(seen))
    if changes or as_json:
        return
    if key_management is KeyManagement.PROVIDER:
        typer.echo(
            "This tenant has no key of its own: the provider manages it, and its state has no history.", err=True
        )
    else:
        typer.echo("No server has seen this tenant's own key in use yet.", err=True)


def _fail(message: str) -> NoReturn:
    typer.echo(f"keystow-service: {message}", err=True)
    raise typer.Exit(1) from None


async def _changes(url: str, tenant_id: TenantId) -> tuple[KeyManagement, Sequence[KeyObservation]]:
    from keystow_service.adapters.registry import open_registry  # noqa: PLC0415 - the other commands need no database

    async with open_registry(url) as registry:
        tenant = await registry.get(tenant_id)
        return tenant.key_management, await registry.key_health.changes(tenant_id)


def _as_json(seen: KeyObservation) -> dict[str, Any]:
    return {
        "time": seen.time.isoformat(),
        "state": seen.state.value,
        "reason": seen.reason,
        "aws_request_id": seen.request_id,
        "deletion_time": seen.deletion_time.isoformat() if seen.deletion_time else None,
    }


def _line(seen: KeyObservation) -> str:
    deletion = f"  to be deleted {seen.deletion_time:%Y-%m-%d %H:%M} UTC" if seen.deletion_time else ""
    return f"{seen.time:%Y-%m-%dT%H:%M:%SZ}  {seen.state.value}{deletion}  {seen.request_id}".rstrip()
