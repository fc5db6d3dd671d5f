"""The installed command, run as its users run it: as a process, on a pipe or on a terminal."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from keystow_client.cli import app

KEYSTOW = Path(sys.executable).with_name("keystow")


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """Standard output."""
        return self.out.decode().splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output of --json."""
        return [json.loads(line) for line in self.lines]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Standard error of --json."""
        return [json.loads(line)["error"] for line in self.err.splitlines()]


@dataclass(frozen=True)
class Command:
    """keystow, for one server, in one directory."""

    address: str
    directory: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | bytes, stdin: bytes = b"") -> Result:
        """Run it on pipes, to its end."""
        done = subprocess.run(
            [KEYSTOW, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            cwd=self.directory,
            env=self.environment,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return Result(done.returncode, done.stdout, done.stderr.decode())

    def in_process(self, *arguments: str | bytes) -> Result:
        """Run it in this process, where standard streams and signals do not matter: much faster."""
        with contextlib.chdir(self.directory):
            done = CliRunner().invoke(app, [os.fsdecode(argument) for argument in arguments], env=self._own_variables)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Result(done.exit_code, done.stdout_bytes, done.stderr)

    @property
    def environment(self) -> dict[str, str]:
        """Where it finds the server, and what else the test has set."""
        return {**os.environ, **self._own_variables}

    @property
    def _own_variables(self) -> dict[str, str]:
        return {"KEYSTOW_ADDRESS": self.address, "XDG_STATE_HOME": str(self.state_home), **self.variables}

    @property
    def state_home(self) -> Path:
        """What it leaves to later processes, apart from the user's own."""
        return self.directory.parent / "state"

    def start(self, *arguments: str, closed: Sequence[int] = (), **streams: Any) -> "subprocess.Popen[bytes]":
        """Start it, and leave the rest to the test; standard streams that are ``closed`` it does not have at all.

        Tests run in the background may ignore SIGINT; it must not.
        """
        closing = " ".join(f"{number}>&-" for number in closed)
        command = ["env", "--default-signal=INT", "sh", "-c", f'exec "$@" {closing}', "sh", str(KEYSTOW), *arguments]
        return subprocess.Popen(command, cwd=self.directory, env=self.environment, **streams)

    def on_terminal(self, *arguments: str, typed: bytes = b"") -> tuple[int, str]:
        """Run it on a terminal of its own: the exit code, and all that appears there."""
        ours, theirs = pty.openpty()
        environment = {**self.environment, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
        with subprocess.Popen(
            [KEYSTOW, *arguments], cwd=self.directory, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            os.write(ours, typed)
            shown = b""
            while data := _read(ours):
                shown += data
        os.close(ours)
        assert b"Traceback" not in shown, shown.decode()
        return process.returncode, shown.decode()


def _read(terminal: int) -> bytes:
    """What a terminal shows next; nothing once its last program has ended, which Linux reports as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""
