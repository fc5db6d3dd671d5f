"""keystow cat, ls, stat and rm."""

from contextlib import aclosing
from io import FileIO
from typing import Annotated

import typer

from keystow_client.cli.addresses import ObjectAddress
from keystow_client.cli.exits import ExitCode
from keystow_client.cli.get import LengthOption, OffsetOption, VersionOption
from keystow_client.cli.output import describe, fields, human_size, timestamp
from keystow_client.cli.session import Session, command
from keystow_client.cli.transfers import FAILURES, Tally
from keystow_client.models import ObjectInfo
from keystow_client.threads import OwnThread

Objects = Annotated[list[str], typer.Argument(metavar="TENANT:KEY", show_default=False)]


@command
async def cat(
    session: Session,
    objects: Objects,
    *,
    offset: OffsetOption = 0,
    length: LengthOption = None,
    version_id: VersionOption = "",
) -> ExitCode:
    """Write objects to standard output, one after the other.

    Bytes are written as they come, each verified; whether an object is complete shows in the exit code.
    """
    tally = Tally(session.output)
    with OwnThread() as thread:
        for address in map(ObjectAddress.parse_object, objects):
            try:
                info = await session.client.get(
                    address.tenant,
                    address.key,
                    FileIO(1, "w", closefd=False),
                    offset=offset,
                    length=length,
                    version_id=version_id,
                    thread=thread,
                )
                tally.done(info.size)
            except BrokenPipeError:
                raise
            except FAILURES as error:
                tally.failed(str(address), error)
    return tally.sum_up(many=False)


@command
async def ls(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="TENANT:[PREFIX]", show_default=False)],
    *,
    long: Annotated[bool, typer.Option("-l", "--long", help="With size, time and version.")] = False,
) -> None:
    """List the objects whose keys start with a prefix, by key.

    On a terminal, control characters in keys are shown escaped; a pipe gets keys as they are, one a line. Keys may hold
    line ends: programs use --json.
    """
    address = ObjectAddress.parse(target if ":" in target else f"{target}:")
    async with aclosing(session.client.list(address.tenant, address.key)) as infos:
        async for info in infos:
            session.output.line(_long(info) if long else info.key, describe(info))


def _long(info: ObjectInfo) -> str:
    return f"{human_size(info.size):>10}  {timestamp(info.create_time)}  {info.version_id}  {info.key}"


@command
async def stat(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="TENANT:KEY", show_default=False)],
    *,
    version_id: VersionOption = "",
) -> None:
    """Describe an object."""
    address = ObjectAddress.parse_object(target)
    described = describe(await session.client.stat(address.tenant, address.key, version_id=version_id))
    session.output.block(fields(described), described)


@command
async def rm(
    session: Session,
    objects: Objects,
    *,
    if_version_id: Annotated[str, typer.Option("--if-version-id", metavar="ID", help="Remove only this version.")] = "",
    force: Annotated[bool, typer.Option("-f", "--force", help="A missing object is no failure.")] = False,
) -> ExitCode:
    """Remove objects."""
    tally = Tally(session.output)
    for address in map(ObjectAddress.parse_object, objects):
        try:
            await session.client.delete(address.tenant, address.key, if_version_id=if_version_id, allow_missing=force)
            tally.done(0)
            session.output.record({"tenant_id": address.tenant, "key": address.key})
        except FAILURES as error:
            tally.failed(str(address), error)
    return tally.sum_up(many=False)
