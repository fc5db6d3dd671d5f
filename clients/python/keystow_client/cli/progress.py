"""Progress bars on stderr, where that is a terminal; elsewhere nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
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
    if output.as_json or not sys.stderr.isatty():
        yield Bars(None)
        return
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=48, no_wrap=True)),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with progress:
        output.bars_console = console
        try:
            yield Bars(progress)
        finally:
            output.bars_console = None
