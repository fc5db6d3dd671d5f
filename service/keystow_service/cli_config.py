"""What the commands that read the server's settings share: ``--config``, and one way to say what is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from keystow_service.settings import Settings, SettingsError, load

EXIT_USAGE = 2

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="KEYSTOW_CONFIG", help="A TOML file with settings; KEYSTOW_… variables go first."),
]


def settings_in_force(config: Path | None) -> Settings:
    """The settings; if they are wrong, says so and exits."""
    try:
        return load(config)
    except SettingsError as error:
        refuse(error.problems)


def refuse(problems: Sequence[str]) -> NoReturn:
    """One line for each, and exit."""
    for problem in problems:
        typer.echo(f"keystow-service: {problem}", err=True)
    raise typer.Exit(EXIT_USAGE) from None
