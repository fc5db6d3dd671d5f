"""Whatever a server sends: an Export whose stream does not hold together is never called whole."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.broken_exports import ARCHIVE, answer, responses, stocked
from client.content import names
from client.destinations import Pipe, exported
from client.scripted import MIB, Context, ScriptedServer, Step
from keystow.v1 import storage_pb2 as pb
from keystow_client import (
    AbortedError,
    AsyncClient,
    IncompleteError,
    IntegrityError,
)

__all__ = ["stocked"]

pytestmark = pytest.mark.usefixtures("stocked")


def altered(number: int, field: str, **values: Any) -> Callable[[list[pb.ExportResponse]], None]:
    """One field of one message, with other values."""

    def alter(honest: list[pb.ExportResponse]) -> None:
        for name, value in values.items():
            setattr(getattr(honest[number], field), name, value)

    return alter


def without(number: int) -> Callable[[list[pb.ExportResponse]], None]:
    """All but one message."""
    return lambda honest: honest.pop(number) and None


WRONG: dict[str, Callable[[list[pb.ExportResponse]], None]] = {
    "nothing": list.clear,
    "no summary": without(-1),
    "first chunk missing": without(0),
    "chunk repeated": lambda honest: honest.insert(2, honest[2]),
    "something after the end": lambda honest: honest.append(honest[0]),
    "two summaries": lambda honest: honest.append(honest[-1]),
    "empty message": lambda honest: honest.insert(3, pb.ExportResponse()),
    "chunk altered": altered(2, "chunk", data=b"?" * MIB),
    "chunk offset": altered(2, "chunk", offset=0),
    "no checksum": lambda honest: honest[2].chunk.ClearField("crc32c"),
}
WRONG_SUMMARY: dict[str, Callable[[list[pb.ExportResponse]], None]] = {
    "last chunk missing": without(-2),
    "whole checksum": altered(-1, "summary", crc32c=1),
    "archive size": altered(-1, "summary", archive_size=1),
    "contradiction": altered(-1, "summary", complete=False),
    "failures hidden": altered(-1, "summary", failed_count=1),
}


@pytest.mark.parametrize("what", [*WRONG, *WRONG_SUMMARY])
async def test_a_stream_that_does_not_hold_together_is_never_whole(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, what: str
) -> None:
    """It raises, and a path shows nothing, until an attempt is right.

    Where the whole does not add up no further attempt is made: the fault may be before the last checkpoint.
    """
    wrong = responses(server)
    (WRONG | WRONG_SUMMARY)[what](wrong)
    for dest in (None, Pipe(), tmp_path / "dest"):
        server.storage.next("Export", *[always_from_the_start(wrong)] * 9)
        with pytest.raises((IncompleteError, IntegrityError, AbortedError)) as failure:
            await exported(client, "acme", dest)
        server.storage.script["Export"].clear()
        assert (failure.value.attempts == 1) == (what in WRONG_SUMMARY)
    assert names(tmp_path) == []
    if what in WRONG:
        server.storage.next("Export", answer(*wrong))
        assert await exported(client, "acme", tmp_path / "dest") == ARCHIVE


def always_from_the_start(wrong: list[pb.ExportResponse]) -> Step:
    """The wrong answer, or what is left of it after the token, so that it never becomes right."""

    async def step(request: pb.ExportRequest, context: Context) -> None:
        tokens = [each.checkpoint.checkpoint_token for each in wrong]
        begin = tokens.index(request.checkpoint_token) + 1 if request.checkpoint_token else 0
        for response in wrong[begin:]:
            await context.write(response)

    return step


@pytest.mark.parametrize("what", ["size", "token"])
async def test_a_checkpoint_of_other_bytes_is_refused(client: AsyncClient, server: ScriptedServer, what: str) -> None:
    """It would join what does not belong together."""
    wrong = responses(server)
    [first, *_] = [each.checkpoint for each in wrong if each.HasField("checkpoint")]
    if what == "size":
        first.archive_size -= 1
    else:
        first.checkpoint_token = b""
    server.storage.next("Export", *[answer(*wrong)] * 6)
    with pytest.raises(IntegrityError, match="checkpoint"):
        await exported(client, "acme", io.BytesIO())


async def test_fewer_objects_than_were_named_are_no_export(client: AsyncClient, server: ScriptedServer) -> None:
    """Whoever names keys gets all of them, or hears which failed."""
    fewer = responses(server, keys=pb.ObjectKeys(keys=["a", "c"]))
    server.storage.next("Export", *[answer(*fewer)] * 6)
    with pytest.raises(IntegrityError, match="objects"):
        await exported(client, "acme", io.BytesIO(), keys=["a", "b", "c"])
