"""keystow put."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Annotated

import typer

from keystow_client.cli.addresses import ObjectAddress
from keystow_client.cli.exits import ExitCode
from keystow_client.cli.output import describe
from keystow_client.cli.progress import Bars, bars
from keystow_client.cli.put_resume import UnfinishedUpload, put_resumably
from keystow_client.cli.session import Session, command
from keystow_client.cli.transfers import SkippedError, Tally, Transfers
from keystow_client.cli.walk import EmptyDirectory, Leftover, LocalFile, walk
from keystow_client.models import WriteMode
from keystow_client.threads import OwnThread

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Upload:
    """One file, or standard input, and where it goes."""

    source: Path | None
    address: ObjectAddress

    @property
    def name(self) -> str:
        """For people."""
        return STDIN if self.source is None else str(self.source)


@dataclass(frozen=True, slots=True)
class PutOptions:
    """What holds for every object of the command."""

    mode: WriteMode
    if_version_id: str
    content_type: str
    metadata: Mapping[str, str]
    size: int | None
    verify_sha256: bool
    resume: bool

    @property
    def of_the_object(self) -> Mapping[str, object]:
        """Those that an upload has from its beginning to its end."""
        return {
            "mode": self.mode.value,
            "if_version_id": self.if_version_id,
            "content_type": self.content_type,
            "metadata": dict(self.metadata),
        }


@command
async def put(
    session: Session,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Files; - is standard input.")],
    target: Annotated[str, typer.Argument(metavar="TENANT:[KEY]", help="Where to put them.", show_default=False)],
    *,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Put directories with all they hold.")] = False,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", metavar="N", min=1, max=64, help="Transfers at the same time.")
    ] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what has the key already.")] = False,
    if_version_id: Annotated[
        str, typer.Option("--if-version-id", metavar="ID", help="Replace only this version.")
    ] = "",
    content_type: Annotated[str, typer.Option("--content-type", metavar="TYPE")] = "",
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="NAME=VALUE", help="Kept with the object; repeatable.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", metavar="BYTES", min=0, help="Bytes to expect of standard input; needed beyond 400 GiB."
        ),
    ] = None,
    verify_sha256: Annotated[bool, typer.Option("--verify-sha256", help="Have the service check the SHA-256.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Of one file: go on with what an interrupted put --resume has sent.")
    ] = False,
) -> ExitCode:
    """Store files, directories or standard input as objects.

    If the key is left out or ends with a slash, the name of the file or directory is appended to it. Objects that exist
    are not replaced without --overwrite. Prints the address of each object stored.

    Repeat put --resume after it was killed or has failed, with the same options, and nothing is sent again that the
    service has. What it takes is kept in $XDG_STATE_HOME/keystow, by default ~/.local/state/keystow.
    """
    address = ObjectAddress.parse(target)
    if resume and (recursive or len(sources) > 1 or STDIN in sources or verify_sha256):
        raise typer.BadParameter(
            "--resume is for one file, and excludes --verify-sha256, which needs all of it at once"
        )
    _check(sources, address, alone=bool(if_version_id), overwrite=overwrite, recursive=recursive, size=size)
    options = PutOptions(
        mode=WriteMode.OVERWRITE if overwrite else WriteMode.CREATE,
        if_version_id=if_version_id,
        content_type=content_type,
        metadata=_pairs(metadata or []),
        size=size,
        verify_sha256=verify_sha256,
        resume=resume,
    )
    tally = Tally(session.output)
    with bars(session.output) as shown:
        transfers = Transfers(partial(_transfer, session, options, shown), lambda upload: upload.name, tally)
        await transfers.run(_uploads(sources, address, tally, recursive=recursive), jobs)
    return tally.sum_up(many=recursive or len(sources) > 1)


def _check(
    sources: list[str], address: ObjectAddress, *, alone: bool, overwrite: bool, recursive: bool, size: int | None
) -> None:
    """Raises typer.BadParameter for what contradicts itself."""
    many = recursive or len(sources) > 1
    if len(sources) > 1 and not address.is_prefix:
        raise typer.BadParameter(f"several sources need a key that ends with a slash, or none: {address}/")
    if STDIN in sources and address.is_prefix:
        raise typer.BadParameter("standard input has no name: write the whole key")
    if alone and (overwrite or many):
        raise typer.BadParameter("--if-version-id replaces one version of one object: leave --overwrite and -r out")
    if size is not None and sources != [STDIN]:
        raise typer.BadParameter("--size is for standard input: files know their size")


def _pairs(metadata: list[str]) -> dict[str, str]:
    pairs = {}
    for each in metadata:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{each!r} is not NAME=VALUE", param_hint="--metadata")
        pairs[name] = value
    return pairs


async def _uploads(
    sources: list[str], address: ObjectAddress, tally: Tally, *, recursive: bool
) -> AsyncGenerator[Upload, None]:
    with OwnThread() as thread:
        for source in sources:
            path = Path(source)
            if source == STDIN:
                yield Upload(None, address)
            elif not await thread.run(path.is_dir):
                yield Upload(path, address.child(path.name))
            elif recursive:
                # The directory's own name, unless it is called by its place: "." or "..".
                base = address.child("" if path.name == ".." else path.name)
                async with aclosing(_below(path, base, tally, thread)) as uploads:
                    async for upload in uploads:
                        yield upload
            else:
                tally.failed(source, SkippedError("a directory: put -r stores directories"))


async def _below(directory: Path, base: ObjectAddress, tally: Tally, thread: OwnThread) -> AsyncGenerator[Upload, None]:
    found = walk(directory)
    while (entry := await thread.run(partial(next, found, None))) is not None:
        match entry:
            case LocalFile():
                yield Upload(entry.path, base.below(entry.relative))
            case EmptyDirectory():
                tally.output.note(f"{entry.path}: an empty directory, of which nothing is stored")
            case Leftover():
                tally.failed(str(entry.path), entry.problem)


async def _transfer(session: Session, options: PutOptions, shown: Bars, upload: Upload, thread: OwnThread) -> int:
    source: Path | FileIO
    if upload.source is None:
        source, size = FileIO(0, closefd=False), options.size
    else:
        source, size = upload.source, (await thread.run(upload.source.stat)).st_size
    with shown.bar(upload.name, size) as progress:
        put = partial(
            session.client.put,
            upload.address.tenant,
            upload.address.key,
            source,
            content_type=options.content_type,
            metadata=options.metadata,
            mode=options.mode,
            if_version_id=options.if_version_id,
            size=options.size,
            verify_sha256=options.verify_sha256,
            progress=progress,
            thread=thread,
        )
        if options.resume and upload.source is not None:
            unfinished = UnfinishedUpload(upload.source, upload.address, options.of_the_object)
            info = await put_resumably(session, put, unfinished, thread)
        else:
            info = await put()
    session.output.line(str(upload.address), {**describe(info), "path": upload.name})
    return info.size
