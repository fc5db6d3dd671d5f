"""How far things are, on stderr, where that is a terminal; elsewhere nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from keystow_client.cli.output import Output, printable
from keystow_client.put_stream import Progress as ProgressCallback


class Bars:
    """One bar a transfer, gone when it ends."""

    def __init__(self, progress: Progress | None) -> None:
        """Without a progress display nothing is shown."""
        self._progress = progress

    @contextmanager
    def bar(self, name: str, size: int | None) -> Iterator[ProgressCallback]:
        """The callback moves the bar; ``size`` in bytes where it is known."""
        if self._progress is None:
            yield lambda _: None
            return
        progress = self._progress
        task = progress.add_task(printable(name), total=size)
        try:
            yield lambda count: progress.update(task, completed=count)
        finally:
            progress.remove_task(task)


@contextmanager
def bars(output: Output) -> Iterator[Bars]:
    """Show bars while the block runs, and print results above them."""
    name = TextColumn("{task.description}", markup=False, table_column=Column(max_width=48, no_wrap=True))
    amount = DownloadColumn(binary_units=True)
    with _shown(output, name, BarColumn(), amount, TransferSpeedColumn(), TimeRemainingColumn()) as progress:
        yield Bars(progress)


@contextmanager
def waiting(output: Output, what: str, seconds: float) -> Iterator[None]:
    """Show for how long one call has been running, which was asked to wait so long and tells nothing before its end."""
    if not seconds:
        yield
        return
    with _shown(output, SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
        if progress is not None:
            progress.add_task(what, total=None)
        yield


@contextmanager
def _shown(output: Output, *columns: ProgressColumn) -> Iterator[Progress | None]:
    if output.as_json or not sys.stderr.isatty():
        yield None
        return
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    with progress:
        output.bars_console = console
        try:
            yield progress
        finally:
            output.bars_console = None
