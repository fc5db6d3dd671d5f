"""A real keystow server in a process of its own, as operators run it: on a free loopback port, stopped by its pid."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

START_TIMEOUT = 60  # seconds; it imports much
_STOP_TIMEOUT = 60  # more than a drain takes


class ServerProcess(Protocol):
    """As subprocess.Popen."""

    pid: int

    def send_signal(self, number: int, /) -> None: ...
    def wait(self, timeout: float) -> int | None: ...


@dataclass
class KeystowServer:
    """A server's process. ``output`` grows while it runs: what it wrote to standard error, line by line."""

    process: ServerProcess
    address: str = ""
    output: list[str] = field(default_factory=list)
    grown: threading.Condition = field(default_factory=threading.Condition)

    @property
    def log(self) -> Sequence[Mapping[str, Any]]:
        """The structured lines so far."""
        return [json.loads(line) for line in list(self.output) if line.startswith("{")]

    def told(self, event: str, count: int = 1) -> Sequence[Mapping[str, Any]]:
        """The structured lines of one kind, once there are so many; what is logged may take a moment to arrive."""

        def lines() -> Sequence[Mapping[str, Any]]:
            return [entry for entry in self.log if entry["event"] == event]

        with self.grown:
            assert self.grown.wait_for(lambda: len(lines()) >= count, START_TIMEOUT), (event, self.output)
            return lines()

    @property
    def peak_memory(self) -> int:
        """The most resident memory so far, in bytes (VmHWM of /proc/PID/status)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def terminate(self) -> None:
        """SIGTERM: finish what runs, and stop."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_STOP_TIMEOUT)

    def wait(self) -> int | None:
        """Until it has stopped; its exit code, if anybody knows."""
        return self.process.wait(_STOP_TIMEOUT)


@contextmanager
def keystow_server(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, config: Path | None = None
) -> Iterator[KeystowServer]:
    """Start a server over ``data_dir``, and stop it gracefully. ``settings`` are KEYSTOW_… variables.

    Raises RuntimeError, with what it said, if it does not start.
    """
    command = [sys.executable, "-m", "keystow_service", "serve"]
    if config is not None:
        command += ["--config", str(config)]
    with subprocess.Popen(
        command, env=environment(data_dir, settings or {}), stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        with followed(process, process.stderr) as server:
            yield server


def environment(data_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Ours, with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")}
    return inherited | {"KEYSTOW_LISTEN": "127.0.0.1:0", "KEYSTOW_DATA_DIR": str(data_dir), **settings}


@contextmanager
def followed(process: ServerProcess, output: IO[str]) -> Iterator[KeystowServer]:
    """A process that has just begun, once it serves; stopped gracefully at the end. Raises as keystow_server."""
    server = KeystowServer(process)
    told = threading.Event()
    follower = threading.Thread(target=_follow, args=(server, output, told))
    follower.start()
    try:
        told.wait(START_TIMEOUT)
        if not server.address:
            raise RuntimeError(f"the server did not start: {server.output}")
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        follower.join()


def _follow(server: KeystowServer, output: IO[str], told: threading.Event) -> None:
    """Read the server's log to its end, so that the pipe never fills up. ``told`` is set also if the server dies."""
    try:
        for line in output:
            with server.grown:
                server.output.append(line)
                server.grown.notify_all()
            if not server.address:
                server.address = next((entry["address"] for entry in server.log if entry["event"] == "serving"), "")
                if server.address:
                    told.set()
    finally:
        told.set()
