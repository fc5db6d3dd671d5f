"""keystow get."""

import errno
import os
import re
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path, PurePath
from typing import Annotated

import grpc
import typer

from keystow_client.cli.addresses import ObjectAddress, UnsafeKeyError, safe_path
from keystow_client.cli.exits import ExitCode
from keystow_client.cli.output import describe
from keystow_client.cli.progress import Bars, bars
from keystow_client.cli.session import Session, command
from keystow_client.cli.transfers import SkippedError, Tally, Transfers
from keystow_client.errors import NotFoundError
from keystow_client.models import ObjectInfo
from keystow_client.threads import OwnThread

STDOUT = "-"
TENANT_AND_COLON = re.compile("[a-z][a-z0-9-]{2,62}:")

OffsetOption = Annotated[
    int, typer.Option("--offset", metavar="BYTES", help="First byte; a negative one counts from the end.")
]
LengthOption = Annotated[
    int | None, typer.Option("--length", metavar="BYTES", min=0, help="How many bytes. [default: all that follow]")
]
VersionOption = Annotated[str, typer.Option("--version-id", metavar="ID", help="Only this version.")]


@dataclass(frozen=True, slots=True)
class GetOptions:
    """What holds for every object of the command."""

    offset: int
    length: int | None
    version_id: str
    force: bool

    @property
    def are_for_one(self) -> bool:
        """Whether they make sense for a single object only."""
        return bool(self.offset or self.version_id or self.length is not None)


@dataclass(frozen=True, slots=True)
class Fetch:
    """One object, and the file that it goes to: ``path`` below ``root``, or standard output."""

    address: ObjectAddress
    size: int | None
    root: Path
    path: PurePath | None


@command
async def get(
    session: Session,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="TENANT:KEY [DEST]", help="What to get, and where to; - is standard output."),
    ],
    *,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="Get every object below the key, into a directory.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", metavar="N", min=1, max=64, help="Transfers at the same time.")
    ] = 4,
    force: Annotated[bool, typer.Option("-f", "--force", help="Replace files that are there.")] = False,
    offset: OffsetOption = 0,
    length: LengthOption = None,
    version_id: VersionOption = "",
) -> ExitCode:
    """Fetch objects into files.

    DEST, the last of two or more arguments, is a file, a directory that is there, or -. Without it files go to the
    current directory, named as the last part of their keys. A file appears only once it is complete and verified.

    With -r, TENANT:some/dir is fetched into DEST/dir, and TENANT:some/dir/ into DEST itself, which is made if needed.
    Keys that name no file below DEST, such as a/../b, are reported and not fetched. Prints the path of each file.
    """
    texts, dest = (arguments[:-1], arguments[-1]) if len(arguments) > 1 else (arguments, ".")
    options = GetOptions(offset, length, version_id, force)
    many = recursive or len(texts) > 1
    _check(dest, options, many=many)
    tally = Tally(session.output)
    if recursive:
        fetches = _below(session, [ObjectAddress.parse(text) for text in texts], Path(dest), tally)
    else:
        addresses = [ObjectAddress.parse_object(text) for text in texts]
        fetches = _each(addresses, dest, tally, into_directory=_is_directory(dest, needed=many))
    with bars(session.output) as shown:
        transfers = Transfers(partial(_transfer, session, options, shown), lambda fetch: str(fetch.address), tally)
        await transfers.run(fetches, jobs)
    return tally.sum_up(many=many)


def _check(dest: str, options: GetOptions, *, many: bool) -> None:
    """Raises typer.BadParameter for what contradicts itself."""
    if TENANT_AND_COLON.match(dest) and not os.path.lexists(dest):
        raise typer.BadParameter(f"is {dest!r} an object or a file? Add a destination, such as . or ./{dest}")
    if many and dest == STDOUT:
        raise typer.BadParameter("only one object at a time goes to standard output; see keystow cat")
    if many and options.are_for_one:
        raise typer.BadParameter("--offset, --length and --version-id are for one object")


def _is_directory(dest: str, *, needed: bool) -> bool:
    """Whether files go into ``dest``. Raises typer.BadParameter if they must and cannot."""
    if Path(dest).is_dir():
        return True
    if needed or dest.endswith("/"):
        raise typer.BadParameter(f"{dest!r} is no directory that is there")
    return False


async def _each(
    addresses: list[ObjectAddress], dest: str, tally: Tally, *, into_directory: bool
) -> AsyncGenerator[Fetch, None]:
    for address in addresses:
        if dest == STDOUT:
            yield Fetch(address, None, Path(), None)
        elif into_directory:
            try:
                path = safe_path(address.key.rpartition("/")[2])
            except UnsafeKeyError as error:
                tally.failed(str(address), SkippedError(f"skipped: {error}"))
            else:
                yield Fetch(address, None, Path(dest), path)
        else:
            yield Fetch(address, None, Path(dest).parent, PurePath(Path(dest).name))


async def _below(
    session: Session, addresses: list[ObjectAddress], root: Path, tally: Tally
) -> AsyncGenerator[Fetch, None]:
    with OwnThread() as thread:
        await thread.run(partial(_make_root, root))
    for address in addresses:
        found = False
        parent_size = address.key.rfind("/") + 1
        async with aclosing(_listed(session, address)) as infos:
            async for info in infos:
                found = True
                try:
                    path = safe_path(info.key[parent_size:])
                except UnsafeKeyError as error:
                    tally.failed(f"{address.tenant}:{info.key}", SkippedError(f"skipped: {error}"))
                else:
                    yield Fetch(ObjectAddress(address.tenant, info.key), info.size, root, path)
        if not found:
            tally.failed(str(address), NotFoundError("There is no object below it.", code=grpc.StatusCode.NOT_FOUND))


async def _listed(session: Session, address: ObjectAddress) -> AsyncGenerator[ObjectInfo, None]:
    """What a directory's name means: everything below it, and an object that has the very name."""
    if not address.is_prefix:
        page = await session.client.list_page(address.tenant, address.key, page_size=1)
        for info in page.objects:
            if info.key == address.key:
                yield info
    async with aclosing(session.client.list(address.tenant, address.below("").key)) as infos:
        async for info in infos:
            yield info


async def _transfer(session: Session, options: GetOptions, shown: Bars, fetch: Fetch, thread: OwnThread) -> int:
    dest: Path | FileIO
    if fetch.path is None:
        path, dest = Path(STDOUT), FileIO(1, "w", closefd=False)
    else:
        path = dest = fetch.root / fetch.path
        await thread.run(partial(_make_directories, fetch.root, fetch.path))
    with shown.bar(str(path), fetch.size) as progress:
        info = await session.client.get(
            fetch.address.tenant,
            fetch.address.key,
            dest,
            offset=options.offset,
            length=options.length,
            version_id=options.version_id,
            overwrite=options.force,
            progress=progress,
            thread=thread,
        )
    if fetch.path is not None:
        session.output.line(str(path), {**describe(info), "path": str(path)})
    return info.size


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root)) from None


def _make_directories(root: Path, path: PurePath) -> None:
    """Make what is missing between root and file. A symbolic link there could lead outside, and is refused."""
    directory = root
    for part in path.parts[:-1]:
        directory /= part
        try:
            directory.mkdir()
        except FileExistsError:
            if not stat.S_ISDIR(directory.lstat().st_mode):
                raise SkippedError(f"skipped: {directory} is in the way, and no directory") from None
