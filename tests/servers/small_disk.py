"""A disk of 2 MiB for one process, so that it can be full."""

import subprocess
from pathlib import Path

import pytest


def small_disk(path: Path) -> tuple[str, ...]:
    """What runs a command with such a disk at ``path``, which only that command sees. It needs a user namespace."""
    mount = f'mount -t tmpfs -o size=2m none {path} && exec "$@"'
    inside = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount no small disk")
    return inside
