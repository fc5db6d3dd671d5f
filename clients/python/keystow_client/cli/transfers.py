"""Many transfers, several at once, each failure told and none forgotten."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from keystow_client.cli.exits import ExitCode, combined, stops_everything
from keystow_client.cli.output import Output, human_size
from keystow_client.cli.state import StateError
from keystow_client.errors import KeystowError
from keystow_client.threads import OwnThread

_Job = TypeVar("_Job")


class SkippedError(Exception):
    """Something that is not transferred, and why."""


# What may go wrong with one transfer; anything else is a bug.
FAILURES = (KeystowError, OSError, ValueError, SkippedError, StateError)


class _StoppedError(Exception):
    """The next transfer would only fail again."""


@dataclass(slots=True)
class Tally:
    """What has been done, and what has failed."""

    output: Output
    count: int = 0
    size: int = 0
    failures: list[ExitCode] = field(default_factory=list)
    stopped: bool = False  # before everything was tried

    def done(self, size: int) -> None:
        """One transfer of so many bytes."""
        self.count += 1
        self.size += size

    def failed(self, subject: str, error: Exception) -> None:
        """Tell of a failure, and remember it."""
        self.failures.append(self.output.failure(subject, error))

    def sum_up(self, *, many: bool) -> ExitCode:
        """The exit code for everything; where ``many`` were meant, whoever watches or must act is told how it went."""
        if many and self.stopped:
            self.output.note("stopped: the rest was not tried")
        if many and (self.failures or sys.stderr.isatty()):
            failed = f"; {len(self.failures)} failed" if self.failures else ""
            self.output.note(f"{self.count} transferred, {human_size(self.size)}{failed}")
        return combined(self.failures)


class Transfers(Generic[_Job]):
    """Does jobs, some of them side by side, each side with a thread for its files."""

    def __init__(
        self, transfer: Callable[[_Job, OwnThread], Awaitable[int]], name: Callable[[_Job], str], tally: Tally
    ) -> None:
        """``transfer`` does a job and gives the bytes moved; ``name`` says what its failure is about."""
        self._transfer = transfer
        self._name = name
        self._tally = tally
        self._turn = asyncio.Lock()

    async def run(self, jobs: AsyncGenerator[_Job, None], at_once: int) -> None:
        """Do all jobs; after a failure that is not about its own object, no further ones."""
        async with aclosing(jobs):
            workers = [asyncio.create_task(self._work(jobs)) for _ in range(at_once)]
            try:
                await asyncio.gather(*workers)
            except _StoppedError:
                self._tally.stopped = True
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, jobs: AsyncGenerator[_Job, None]) -> None:
        with OwnThread() as thread:
            while (job := await self._next(jobs)) is not None:
                try:
                    self._tally.done(await self._transfer(job, thread))
                except BrokenPipeError:
                    raise  # nobody reads the results any more
                except FAILURES as error:
                    self._tally.failed(self._name(job), error)
                    if stops_everything(error):
                        raise _StoppedError from None

    async def _next(self, jobs: AsyncGenerator[_Job, None]) -> _Job | None:
        async with self._turn:
            return await anext(jobs, None)
