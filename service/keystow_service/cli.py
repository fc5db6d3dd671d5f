"""The command `keystow-service`."""

import asyncio
import os
import signal
import sys
from importlib.metadata import version
from typing import Annotated

import structlog
import typer

from keystow_service import allocator, cli_audit, cli_health, cli_keys, cli_reap, cli_tenants, log
from keystow_service.adapters.audit.keys import AuditError, check_keys
from keystow_service.adapters.tls_files import TlsFilesError, read_tls_files
from keystow_service.cli_config import ConfigOption, refuse, settings_in_force

app = typer.Typer(
    name="keystow-service",
    help="The keystow server: stores SaaS backups, each tenant's encrypted under its own key.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_keys.keys, name="keys")
app.add_typer(cli_tenants.tenants, name="tenants")
app.add_typer(cli_audit.audit, name="audit")
app.command()(cli_health.health)
app.command()(cli_reap.reap)

EXIT_FAILURE = 1


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        typer.echo(version("keystow-service"))
        raise typer.Exit


@app.callback()
def _keystow_service(
    *,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """The keystow server: stores SaaS backups, each tenant's encrypted under its own key."""


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs and stop."""
    allocator.tune()
    # Its lines are not JSON. INFO has one for each TLS handshake that fails.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    settings = settings_in_force(config)
    log.configure(settings.log_format)
    os.umask(0o077)
    from keystow_service.app import StartError, open_server  # noqa: PLC0415 - after the allocator is set

    async def run() -> None:
        logger = structlog.get_logger("keystow_service")
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with open_server(settings) as address:
            logger.info("serving", address=address, version=version("keystow-service"), pid=os.getpid())
            await stopping.wait()
            logger.info("stopping", drain_timeout=settings.drain_timeout)
        logger.info("stopped")

    try:
        asyncio.run(run())
    except StartError as error:
        typer.echo(f"keystow-service: {error}", err=True)
        raise typer.Exit(EXIT_FAILURE) from None


@app.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Say what is wrong with the settings, and with the certificates that they name. Starts nothing."""
    settings = settings_in_force(config)
    if settings.tls_files:
        try:
            read_tls_files(settings.tls_files)
        except TlsFilesError as error:
            refuse(error.problems)
    if settings.audit_signing_key or settings.audit_hash_key:
        try:
            check_keys(settings.audit_files)
        except AuditError as error:
            refuse([str(error)])
    for name, value in settings.model_dump(mode="json", exclude={"data_centers"}).items():
        typer.echo(f"{name} = {_as_in_toml(value)}" if value is not None else f"{name} is not set")
    for name, place in settings.data_centers.items():
        objects = f"bucket {place.bucket}" if place.bucket else "this machine"
        keys = "AWS KMS" if place.provider_key_arn else f"the keyring in {settings.data_dir}"
        typer.echo(f"data_centers.{name}: {place.region}, objects: {objects}, keys: {keys}")
    typer.echo("The settings are valid.", err=True)


def _as_in_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Run the command."""
    sys.exit(app())
