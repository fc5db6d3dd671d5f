"""``keystow-service keys``: what the KMS console is to AWS keys, for the local keyring.

A running server sees every change at the next use of the key. Exit codes: 1 the change failed or was refused, 2 bad
input.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import MAX_WAITING_DAYS, MIN_WAITING_DAYS, KeyringAdmin
from keystow_service.adapters.keyring_file import KeyRecord
from keystow_service.adapters.root_key import KeyringError
from keystow_service.errors import KmsKeyArnInvalidError
from keystow_service.model import KeyArn

keys = typer.Typer(
    name="keys",
    help="Create keys of the local keyring and change their states.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="KEYSTOW_DATA_DIR", help="The server's data; the keyring is in keyring/ there."),
]
KeyringPath = Annotated[
    Path | None,
    typer.Option("--keyring", help="The keyring file, if it is elsewhere. root.key is expected beside it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Arn = Annotated[str, typer.Argument(metavar="ARN", help="The key's full ARN.")]

DEFAULT_DATA_DIR = Path("data")


@keys.command()
def create(
    *,
    region: Annotated[str, typer.Option(help="Region of the key's ARN; must be the data centre's.")],
    tenant: Annotated[list[str], typer.Option(help='A tenant that the key may serve; repeatable. "*" is any.')],
    description: Annotated[str, typer.Option(help="For people.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Create an enabled key and print its ARN. Makes the keyring on first use."""
    with _explained():
        key = _admin(data_dir, keyring).create(region, tenants=tenant, description=description)
    typer.echo(json.dumps(_as_json(key)) if as_json else key.arn.text)


@keys.command("list")
def list_keys(
    *,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """List all keys: ARN, state, tenants, description."""
    with _explained():
        found = _admin(data_dir, keyring).list()
    if as_json:
        typer.echo(json.dumps([_as_json(key) for key in found]))
        return
    for key in found:
        typer.echo(f"{_line(key)}  {','.join(key.tenants)}  {key.description}".rstrip())


@keys.command()
def disable(
    *,
    arn: Arn,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Cut off backup, restore and export of the key's tenants, until it is enabled."""
    with _explained():
        _print(_admin(data_dir, keyring).disable(KeyArn.parse(arn)), as_json=as_json)


@keys.command()
def enable(
    *,
    arn: Arn,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Let a disabled key work again."""
    with _explained():
        _print(_admin(data_dir, keyring).enable(KeyArn.parse(arn)), as_json=as_json)


@keys.command("schedule-deletion")
def schedule_deletion(
    *,
    arn: Arn,
    days: Annotated[
        int, typer.Option(min=MIN_WAITING_DAYS, max=MAX_WAITING_DAYS, help="Waiting time.")
    ] = MAX_WAITING_DAYS,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Stop the key now, and destroy it after the waiting time: all data under it is unreadable then, for good."""
    with _explained():
        _print(_admin(data_dir, keyring).schedule_deletion(KeyArn.parse(arn), days=days), as_json=as_json)


@keys.command("cancel-deletion")
def cancel_deletion(
    *,
    arn: Arn,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Keep a key that is scheduled for deletion. It is disabled then: enable it to use it."""
    with _explained():
        _print(_admin(data_dir, keyring).cancel_deletion(KeyArn.parse(arn)), as_json=as_json)


@keys.command()
def rotate(
    *,
    arn: Arn,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    keyring: KeyringPath = None,
    as_json: AsJson = False,
) -> None:
    """Give the key new material. What was written before stays readable."""
    with _explained():
        _print(_admin(data_dir, keyring).rotate(KeyArn.parse(arn)), as_json=as_json)


def _admin(data_dir: Path, keyring: Path | None) -> KeyringAdmin:
    path = keyring or data_dir / "keyring" / "keyring.json"
    return KeyringAdmin(path, path.with_name("root.key"), SystemClock())


@contextmanager
def _explained() -> Iterator[None]:
    """What went wrong, in words, on standard error."""
    try:
        yield
    except KmsKeyArnInvalidError as error:
        raise typer.BadParameter(error.message) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
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
