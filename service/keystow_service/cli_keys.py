"""``keystow-service keys``: what the KMS console is to AWS keys, for the local keyring.

A running server sees every change at the next use of the key. Exit codes: 1 the change failed or was refused, 2 bad
input.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from keystow_service.adapters.keyring_admin import ANY_TENANT, MAX_WAITING_DAYS, MIN_WAITING_DAYS
from keystow_service.adapters.keyring_file import KeyRecord
from keystow_service.adapters.posix_files import is_missing
from keystow_service.adapters.root_key import KeyringError
from keystow_service.errors import KmsKeyArnInvalidError
from keystow_service.keyring_place import KeyringPlace
from keystow_service.model import KeyArn
from keystow_service.settings import SettingsError

keys = typer.Typer(
    name="keys",
    help="Create keys of the local keyring and change their states.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

Config = Annotated[
    Path | None,
    typer.Option("--config", envvar="KEYSTOW_CONFIG", help="The server's settings: they say where its data is."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The server's data, before the settings; the keyring is in keyring/ there."),
]
KeyringPath = Annotated[
    Path | None,
    typer.Option("--keyring", help="The keyring file, if it is elsewhere. root.key is expected beside it."),
]
AllTenants = Annotated[
    bool, typer.Option("--yes-all-tenants", help="Do not ask, though the key serves any number of tenants.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_WORD = "all tenants"

Arn = Annotated[str, typer.Argument(metavar="ARN", help="The key's full ARN.")]


@keys.command()
def create(
    *,
    region: Annotated[str, typer.Option(help="Region of the key's ARN; must be the data centre's.")],
    tenant: Annotated[list[str], typer.Option(help='A tenant that the key may serve; repeatable. "*" is any.')],
    description: Annotated[str, typer.Option(help="For people.")] = "",
    init: Annotated[bool, typer.Option("--init", help="Make the keyring, before a server has.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Create an enabled key and print its ARN."""
    with _explained():
        place = KeyringPlace.of(config, data_dir, keyring) if init else _found(config, data_dir, keyring)
        try:
            key = place.admin().create(region, tenants=tenant, description=description)
        except KmsKeyArnInvalidError:
            raise ValueError(f"{region!r} is no region of AWS, such as eu-west-1 or us-east-1") from None
    typer.echo(json.dumps(_as_json(key)) if as_json else key.arn.text)


@keys.command("list")
def list_keys(
    *,
    config: Config = None,
    data_dir: DataDir = None,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """List all keys: ARN, state, tenants, description."""
    with _explained():
        found = _found(config, data_dir, keyring).admin().list()
    if as_json:
        typer.echo(json.dumps([_as_json(key) for key in found]))
        return
    for key in found:
        typer.echo(f"{_line(key)}  {','.join(key.tenants)}  {key.description}".rstrip())


@keys.command()
def disable(
    *,
    arn: Arn,
    config: Config = None,
    data_dir: DataDir = None,
    keyring: KeyringPath = None,
    yes_all_tenants: AllTenants = False,
    as_json: AsJson = False,
) -> None:
    """Cut off backup, restore and export of the key's tenants, until it is enabled."""
    with _explained():
        key_arn = KeyArn.parse(arn)
        place = _found(config, data_dir, keyring)
        _confirm("Disabling", key_arn, place, sure=yes_all_tenants)
        _print(place.admin().disable(key_arn), as_json=as_json)


@keys.command()
def enable(
    *,
    arn: Arn,
    config: Config = None,
    data_dir: DataDir = None,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Let a disabled key work again."""
    with _explained():
        key_arn = KeyArn.parse(arn)
        _print(_found(config, data_dir, keyring).admin().enable(key_arn), as_json=as_json)


@keys.command("schedule-deletion")
def schedule_deletion(
    *,
    arn: Arn,
    days: Annotated[
        int, typer.Option(min=MIN_WAITING_DAYS, max=MAX_WAITING_DAYS, help="Waiting time.")
    ] = MAX_WAITING_DAYS,
    config: Config = None,
    data_dir: DataDir = None,
    keyring: KeyringPath = None,
    yes_all_tenants: AllTenants = False,
    as_json: AsJson = False,
) -> None:
    """Stop the key now, and destroy it after the waiting time: all data under it is unreadable then, for good."""
    with _explained():
        key_arn = KeyArn.parse(arn)
        place = _found(config, data_dir, keyring)
        _confirm("Deleting", key_arn, place, sure=yes_all_tenants)
        _print(place.admin().schedule_deletion(key_arn, days=days), as_json=as_json)


@keys.command("cancel-deletion")
def cancel_deletion(
    *,
    arn: Arn,
    config: Config = None,
    data_dir: DataDir = None,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Keep a key that is scheduled for deletion. It is disabled then: enable it to use it."""
    with _explained():
        key_arn = KeyArn.parse(arn)
        _print(_found(config, data_dir, keyring).admin().cancel_deletion(key_arn), as_json=as_json)


@keys.command()
def rotate(
    *,
    arn: Arn,
    config: Config = None,
    data_dir: DataDir = None,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Give the key new material. What was written before stays readable."""
    with _explained():
        key_arn = KeyArn.parse(arn)
        key = _found(config, data_dir, keyring).admin().rotate(key_arn)
    if as_json:
        _print(key, as_json=True)
    else:
        typer.echo(f"{_line(key)}  rotated: new material, number {len(key.material)}; the older ones still open")


def _found(config: Path | None, data_dir: Path | None, keyring: Path | None) -> KeyringPlace:
    """Where a server has made its keyring. Raises KeyringError, SettingsError."""
    place = KeyringPlace.of(config, data_dir, keyring)
    if is_missing(place.keyring):
        raise KeyringError(
            f"There is no keyring {place.keyring}, and a second one would be of no use to the server. Name the "
            "server's place with --config or --data-dir; before its first start, keys create --init makes the keyring."
        )
    return place


def _confirm(deed: str, key_arn: KeyArn, place: KeyringPlace, *, sure: bool) -> None:
    """One key may stop many tenants at once: not without somebody's word for it. Raises KeyringError."""
    key = place.admin().get(key_arn)
    if sure or ANY_TENANT not in key.tenants:
        return
    warning = (
        f"{key.arn} serves any tenant. {deed} it stops all that are registered with it: {place.tenants_of(key.arn)}."
    )
    if not sys.stdin.isatty():
        raise KeyringError(f"{warning} Nothing was changed. If all of them are meant, say so with --yes-all-tenants.")
    typer.echo(f"keystow-service: {warning}", err=True)
    if typer.prompt(f'Type "{_WORD}" if you mean it', err=True) != _WORD:
        raise KeyringError("Nothing was changed.")


@contextmanager
def _explained() -> Iterator[None]:
    """What went wrong, in words, on standard error."""
    try:
        yield
    except KmsKeyArnInvalidError as error:
        raise typer.BadParameter(error.message) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except SettingsError as error:
        for problem in error.problems:
            typer.echo(f"keystow-service: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyringError as error:
        typer.echo(f"keystow-service: {error}", err=True)
        raise typer.Exit(1) from None


def _print(key: KeyRecord, *, as_json: bool) -> None:
    typer.echo(json.dumps(_as_json(key)) if as_json else _line(key))


def _line(key: KeyRecord) -> str:
    state = (
        key.state.value
        if key.deletion_time is None
        else f"{key.state.value} until {key.deletion_time:%Y-%m-%d %H:%M} UTC"
    )
    return f"{key.arn}  {state}"


def _as_json(key: KeyRecord) -> dict[str, Any]:
    return {
        "arn": key.arn.text,
        "state": key.state.value,
        "deletion_time": None if key.deletion_time is None else key.deletion_time.isoformat(),
        "tenants": list(key.tenants),
        "description": key.description,
        "provider": key.provider,
        "create_time": key.create_time.isoformat(),
        "material_versions": len(key.material),
    }
