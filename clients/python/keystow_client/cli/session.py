"""What every command shares: the options for the connection, an open client, and one way to end.

A command is an async function whose first parameter is a Session and whose others are its own. It prints results and
returns an exit code; what it raises becomes one line and a code, never a traceback.
"""

import asyncio
import inspect
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from keystow_client.aio import AsyncClient
from keystow_client.allocator import tune_allocator
from keystow_client.cli.exits import ExitCode
from keystow_client.cli.output import Output
from keystow_client.errors import KeystowError
from keystow_client.retry import RetryPolicy

_P = ParamSpec("_P")

DEFAULT_RETRY_FOR = 60.0

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The service. [default: $KEYSTOW_ADDRESS or 127.0.0.1:50051]",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool | None, typer.Option("--json", help="One JSON object a line; failures as JSON on stderr.", show_default=False)
]
RetryForOption = Annotated[
    float | None,
    typer.Option(
        "--retry-for",
        metavar="SECONDS",
        min=0,
        help=f"How long to go on after a first failure that passes; 0 tries once. [default: {DEFAULT_RETRY_FOR:g}]",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """The shared options, as given before the command's name or after it."""

    address: str | None = None
    as_json: bool | None = None
    retry_for: float | None = None

    def or_else(self, other: "Connection") -> "Connection":
        """These, completed by those."""
        return Connection(
            self.address if self.address is not None else other.address,
            self.as_json if self.as_json is not None else other.as_json,
            self.retry_for if self.retry_for is not None else other.retry_for,
        )


@dataclass(frozen=True, slots=True)
class Session:
    """An open client, and where to print."""

    client: AsyncClient
    output: Output


Command = Callable[Concatenate[Session, _P], Coroutine[Any, Any, ExitCode | None]]


def command(function: Command[_P]) -> Callable[..., None]:
    """The function as Typer takes it: with the shared options in the place of the session."""

    def run(
        context: typer.Context, *, address: str | None, as_json: bool | None, retry_for: float | None, **arguments: Any
    ) -> None:
        shared = Connection(address, as_json, retry_for).or_else(context.find_object(Connection) or Connection())
        raise typer.Exit(_run(function, shared, arguments))

    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    own = list(inspect.signature(function).parameters.values())[1:]
    shared_options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (("address", AddressOption), ("as_json", JsonOption), ("retry_for", RetryForOption))
    ]
    signature = inspect.Signature([first, *own, *shared_options])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature gives Typer
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def _run(function: Command[Any], shared: Connection, arguments: dict[str, Any]) -> ExitCode:
    output = Output(as_json=bool(shared.as_json))
    tune_allocator()
    try:
        with _retries_told(output):
            return asyncio.run(_in_session(function, shared, output, arguments))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE
    except typer.BadParameter:
        raise  # Typer shows how the command is used
    except (KeystowError, OSError, ValueError) as error:
        return output.failure(_subject(function, arguments) if output.as_json else "", error)
    except Exception as error:
        if os.environ.get("KEYSTOW_DEBUG"):
            raise
        output.note(f"a bug: {type(error).__name__}. Run it again with KEYSTOW_DEBUG=1 and report what it prints.")
        return ExitCode.OTHER


def _subject(function: Command[Any], arguments: dict[str, Any]) -> str:
    """What a command is about, for programs: people have just typed it."""
    return str(arguments.get("target") or arguments.get("tenant") or function.__name__.replace("_", "-"))


async def _in_session(
    function: Command[Any], shared: Connection, output: Output, arguments: dict[str, Any]
) -> ExitCode:
    seconds = DEFAULT_RETRY_FOR if shared.retry_for is None else shared.retry_for
    retry = RetryPolicy(max_attempts=1000 if seconds else 1, total_seconds=seconds)
    with _ended_by_sigterm() as terminated:
        try:
            async with AsyncClient(shared.address, retry=retry) as client:
                return await function(Session(client, output), **arguments) or ExitCode.OK
        except asyncio.CancelledError:
            if not terminated.is_set():
                raise
            return ExitCode.TERMINATED


@contextmanager
def _ended_by_sigterm() -> Iterator[asyncio.Event]:
    """SIGTERM cancels the command, so that it leaves no half a file behind."""
    terminated = asyncio.Event()
    task = asyncio.current_task()

    def terminate() -> None:
        terminated.set()
        if task is not None:
            task.cancel()

    with suppress(NotImplementedError):  # event loops of Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    yield terminated


class _Notes(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(record.getMessage())


@contextmanager
def _retries_told(output: Output) -> Iterator[None]:
    """Whoever waits should know what for."""
    log, notes = logging.getLogger("keystow_client"), _Notes(output)
    log.addHandler(notes)
    try:
        yield
    finally:
        log.removeHandler(notes)
