"""versitygw over an empty folder: a real S3 server in a process of its own on a free loopback port.

Its conditional writes are atomic, and it verifies checksums and the order of parts, where moto does not.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_PROGRAM = Path(__file__).parents[2] / "build" / "versitygw" / "versitygw"
_START_TIMEOUT = 60.0  # seconds
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class VersitygwServer:
    """A running server, and credentials that it takes."""

    endpoint: str  # for example "http://127.0.0.1:41233"
    region: str = "eu-central-1"
    access_key_id: str = "testing"
    secret_access_key: str = "testing"


@contextmanager
def versitygw_server(program: Path, folder: Path) -> Iterator[VersitygwServer]:
    """Start a server, and stop exactly that process at the end. Each folder in ``folder`` is a bucket."""
    server = VersitygwServer("")
    environment = {
        "ROOT_ACCESS_KEY_ID": server.access_key_id,
        "ROOT_SECRET_ACCESS_KEY": server.secret_access_key,
        "VGW_REGION": server.region,
        "VGW_PORT": "127.0.0.1:0",
        "VGW_QUIET": "true",
    }
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "posix", folder], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield VersitygwServer(f"http://127.0.0.1:{_port(process, log)}")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersitygwServer]:
    """One server for all tests that name buckets of their own."""
    if not _PROGRAM.exists():
        says = "there is no versitygw: tests/servers/versitygw.sh builds it"
        if os.environ.get("CI"):
            pytest.fail(says)
        pytest.skip(says)
    with versitygw_server(_PROGRAM, tmp_path_factory.mktemp("objects")) as server:
        yield server


def _open_files(pid: int) -> Iterator[str]:
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed just now
            yield str(each.readlink())


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Wait until it listens. The kernel has chosen the port, so that no two clash, and the log does not say which."""
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"versitygw did not start: {log.read_text(errors='replace')}")
        sockets = set(_open_files(process.pid))
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            _, address, _, state, *_, inode = line.split()[:10]
            if state == _LISTENING and f"socket:[{inode}]" in sockets:
                return int(address.partition(":")[2], 16)
        time.sleep(0.02)
    raise RuntimeError("versitygw did not start in time")
