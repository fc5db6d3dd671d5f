"""keystow servers forked from a process that has done the imports: nearly all of a start, where a test needs many.

From its first setting on each does what an operator's process does, and shares nothing with those before it.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from servers.keystow import KeystowServer, environment, followed

_PROGRAM = Path(__file__).with_name("forking.py")


class Forked:
    """A child of the nursery's. Nobody learns its exit code."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        """As of Popen: nothing happens once it is gone."""
        if not self._gone(0):
            signal.pidfd_send_signal(self._handle, number)

    def wait(self, timeout: float) -> None:
        """Raises TimeoutExpired."""
        if not self._gone(timeout):
            raise subprocess.TimeoutExpired("keystow-service", timeout)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)

    def _gone(self, timeout: float) -> bool:
        return bool(select.select([self._handle], [], [], timeout)[0])


class Nursery:
    """The process that forks them."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders

    @contextmanager
    def server(self, data_dir: Path, settings: Mapping[str, str]) -> Iterator[KeystowServer]:
        """As keystow_server."""
        read, write = os.pipe()
        with open(read, encoding="utf-8") as output:  # noqa: PTH123 - no path
            try:
                order = json.dumps(environment(data_dir, settings)).encode()
                socket.send_fds(self._orders, [order], [write])
            finally:
                os.close(write)
            with closing(Forked(int(self._orders.recv(16)))) as process, followed(process, output) as server:
                yield server


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Ready once its imports are done."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", _PROGRAM, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        yield Nursery(ours)
    process.wait()
