"""moto's S3 and KMS, served over HTTP by a process of its own on a free loopback port.

The real AWS clients talk to it, and it lives and dies apart from the code under test. Each instance starts empty.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import pytest

_STARTED = re.compile(rb"Running on (http://127\.0\.0\.1:[0-9]+)")
_START_TIMEOUT = 60.0  # seconds; it imports much


@dataclass(frozen=True, slots=True)
class MotoServer:
    """A running server, and credentials that it takes."""

    endpoint: str  # for example "http://127.0.0.1:41233"
    region: str = "eu-central-1"
    access_key_id: str = "testing"
    secret_access_key: str = "testing"


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """Start a server, and stop exactly that process at the end."""
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield MotoServer(_endpoint(process, log))
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """One server for all tests that name buckets and keys of their own."""
    with moto_server() as server:
        yield server


def _endpoint(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """Wait until the server says where it listens: port 0 leaves the choice to the kernel, so that no two clash."""
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        output = os.pread(log.fileno(), 1 << 16, 0)  # pread: the server writes at the shared file offset
        if match := _STARTED.search(output):
            return match[1].decode()
        if process.poll() is not None:
            raise RuntimeError(f"moto ended with {process.returncode}: {output.decode(errors='replace')}")
        time.sleep(0.05)
    raise RuntimeError("moto did not start in time")
