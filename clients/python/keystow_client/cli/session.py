"""What every command shares: an open client, and one way to end.

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
from dataclasses import dataclass, fields
from typing import Any, Concatenate, ParamSpec

import typer

from keystow_client.aio import AsyncClient
from keystow_client.allocator import tune_allocator
from keystow_client.cli.exits import ExitCode
from keystow_client.cli.options import DEFAULT_RETRY_FOR, SharedOptions, with_shared_options
from keystow_client.cli.output import Output
from keystow_client.cli.state import StateError
from keystow_client.errors import KeystowError
from keystow_client.retry import RetryPolicy

_P = ParamSpec("_P")


@dataclass(frozen=True, slots=True)
class Session:
    """An open client, and where to print."""

    client: AsyncClient
    output: Output


Command = Callable[Concatenate[Session, _P], Coroutine[Any, Any, ExitCode | None]]


def command(function: Command[_P]) -> Callable[..., None]:
    """The function as Typer takes it: with the shared options in the place of the session."""
    names = {field.name for field in fields(SharedOptions)}

    def run(context: typer.Context, **arguments: Any) -> None:
        given = SharedOptions(**{name: arguments.pop(name) for name in names})
        shared = given.or_else(context.find_object(SharedOptions) or SharedOptions())
        raise typer.Exit(_run(function, shared, arguments))

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    own = list(inspect.signature(function).parameters.values())[1:]
    return with_shared_options(run, [first, *own])


def _run(function: Command[Any], shared: SharedOptions, arguments: dict[str, Any]) -> ExitCode:
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
    except (KeystowError, OSError, ValueError, StateError) as error:
        return output.failure(_object(error) or (_subject(function, arguments) if output.as_json else ""), error)
    except Exception as error:
        if os.environ.get("KEYSTOW_DEBUG"):
            raise
        output.note(f"a bug: {type(error).__name__}. Run it again with KEYSTOW_DEBUG=1 and report what it prints.")
        return ExitCode.OTHER


def _object(error: Exception) -> str:
    """Which object failed, where the service says so: of an export that is one of many."""
    metadata = error.metadata if isinstance(error, KeystowError) else {}
    tenant, key = metadata.get("tenantId"), metadata.get("objectKey")
    return f"{tenant}:{key}" if tenant and key else ""


def _subject(function: Command[Any], arguments: dict[str, Any]) -> str:
    """What a command is about, for programs: people have just typed it."""
    return str(arguments.get("target") or arguments.get("tenant") or function.__name__.replace("_", "-"))


async def _in_session(
    function: Command[Any], shared: SharedOptions, output: Output, arguments: dict[str, Any]
) -> ExitCode:
    seconds = DEFAULT_RETRY_FOR if shared.retry_for is None else shared.retry_for
    retry = RetryPolicy(max_attempts=1000 if seconds else 1, total_seconds=seconds)
    with _ended_by_sigterm() as terminated:
        try:
            client = AsyncClient(shared.address, tls=shared.tls_in_force, insecure=bool(shared.insecure), retry=retry)
            async with client:
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
