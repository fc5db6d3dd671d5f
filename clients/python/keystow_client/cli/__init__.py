"""The command ``keystow``. docs/client-python.md shows it at work."""

import inspect
import os
import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from keystow_client.cli.exits import EXPLANATION, ExitCode
from keystow_client.cli.export import export
from keystow_client.cli.get import get
from keystow_client.cli.objects import cat, ls, rm, stat
from keystow_client.cli.options import SharedOptions, with_shared_options
from keystow_client.cli.output import Output
from keystow_client.cli.put import put
from keystow_client.cli.tenants import data_centers, server_info, tenant_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EXPLANATION,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        typer.echo(version("keystow-client"))
        raise typer.Exit


def _keystow(
    context: typer.Context,
    *,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
    **shared: Any,
) -> None:
    """Store backups in keystow, and get them back. Objects are written TENANT:KEY.

    All options but those that only tell something may also follow the command's name.
    """
    context.obj = SharedOptions(**shared)


app.callback()(with_shared_options(_keystow, list(inspect.signature(_keystow).parameters.values())[:-1]))
app.command("put")(put)
app.command("get")(get)
app.command("cat")(cat)
app.command("export")(export)
app.command("ls")(ls)
app.command("stat")(stat)
app.command("rm")(rm)
app.add_typer(tenant_app, name="tenant")
app.command("data-centers")(data_centers)
app.command("server-info")(server_info)


def main() -> None:
    """Run the command and exit. Whatever cannot be printed in the locale's encoding is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code: object = ExitCode.OTHER
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter must not find that out again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.BROKEN_PIPE if isinstance(error, BrokenPipeError) else Output(as_json=False).failure("", error)
    sys.exit(code)  # type: ignore[arg-type]  # what SystemExit carries is what sys.exit takes
