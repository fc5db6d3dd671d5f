"""A real PostgreSQL from this machine's packages, in a process of its own on a socket in a temporary folder.

Each instance starts empty, listens nowhere else unless it is told to, and is stopped by its pid.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

_START_TIMEOUT = 60.0  # seconds
_READY = b"database system is ready to accept connections"
_USER, _PASSWORD = "keystow", "canary-password"
# What is written here need not survive anything.
_OPTIONS = ("-c", "fsync=off", "-c", "lc_messages=C", "-c", "logging_collector=off")


@dataclass(slots=True)
class PostgresqlServer:
    """A running server. ``user`` may do everything."""

    programs: Path
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    user: str = _USER
    password: str = _PASSWORD
    address: str = ""  # to listen on, beside the socket

    def url(self, database: str, *, user: str = _USER, password: str = _PASSWORD) -> str:
        """As registry_url has it."""
        return f"postgresql+asyncpg://{user}:{password}@/{database}?host={self.folder}"

    def start(self) -> None:
        """Return when it accepts connections."""
        log = self.folder / "log"
        with log.open("wb") as output:
            command: list[str | Path] = ["postgres", "-D", self.folder / "data", "-k", self.folder, *_OPTIONS]
            command += ["-c", f"listen_addresses={self.address}"]
            self.process = self._run(command, output)
        deadline = time.monotonic() + _START_TIMEOUT
        while _READY not in log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends every connection."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # "fast shutdown"
            self.process.wait(_START_TIMEOUT)
            self.process = None

    def create(self) -> None:
        """Make the cluster. Its one user must show its password, here too."""
        password_file = self.folder / "password"
        password_file.write_text(self.password, encoding="ascii")
        command: list[str | Path] = [
            "initdb",
            "-D",
            self.folder / "data",
            "-U",
            self.user,
            "--auth=scram-sha-256",
            "--no-sync",
        ]
        command += [f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"]
        process = self._run(command, subprocess.PIPE)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"initdb: {output.decode(errors='replace')}")

    def _run(self, command: Sequence[str | Path], output: Any) -> "subprocess.Popen[bytes]":
        """PostgreSQL refuses to run as root, so root runs it as the package's user."""
        account = "postgres" if os.geteuid() == 0 else None
        return subprocess.Popen(
            [self.programs / command[0], *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            user=account,
            group=account,
            extra_groups=[] if account else None,
        )


@contextmanager
def postgresql_server(
    programs: Path, *, user: str = _USER, password: str = _PASSWORD, address: str = ""
) -> Iterator[PostgresqlServer]:
    """Start a server, and stop exactly that process at the end. ``programs`` is the folder of initdb and postgres."""
    # A socket's path is at most 107 bytes, which is less than pytest's folders have.
    with tempfile.TemporaryDirectory(prefix="keystow-pg-", dir="/tmp") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        server = PostgresqlServer(programs, folder, user=user, password=password, address=address)
        server.create()
        try:
            server.start()
            yield server
        finally:
            server.stop()


def find_postgresql() -> Path | None:
    """The newest version's programs: on the PATH, or where Debian puts them."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((each.parent for each in versions), key=lambda each: int(each.parent.name), default=None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One server for all tests that make databases of their own."""
    programs = find_postgresql()
    if programs is None:
        says = "there is no PostgreSQL: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(says)
        pytest.skip(says)
    with postgresql_server(programs) as server:
        yield server


@asynccontextmanager
async def new_database(server: PostgresqlServer) -> AsyncIterator[str]:
    """The name of a database that is empty."""
    name = f"keystow_{uuid.uuid4().hex}"
    await execute(server, "postgres", f"CREATE DATABASE {name}")
    yield name
    await execute(server, "postgres", f"DROP DATABASE {name} WITH (FORCE)")


async def execute(server: PostgresqlServer, database: str, *statements: str) -> None:
    """As the superuser, beside the registry."""
    connection = await asyncpg.connect(
        host=str(server.folder), user=server.user, password=server.password, database=database
    )
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
