"""The command keystow-service, where it is run by the wrong user, or asked what it is."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

_ARN = "arn:aws:kms:us-east-1:000000000000:key/0d9f6f8e-5c7b-4a3e-9f0a-1b2c3d4e5f60"


def run(*arguments: str, prefix: tuple[str, ...] = (), **variables: str) -> "subprocess.CompletedProcess[str]":
    """One command to its end, with nothing of the caller's environment that keystow reads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")}
    return subprocess.run(
        [*prefix, sys.executable, "-m", "keystow_service", *arguments],
        env={**environment, **variables},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("reap",),
        ("tenants", "key-history", "acme"),
        ("keys", "list"),
        ("keys", "create", "--region", "us-east-1", "--tenant", "acme"),
        ("keys", "disable", _ARN),
    ],
)
def test_data_of_another_user(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """What the user who runs a command may not open is a sentence with that reason, and code 1."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0)
    as_root = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # root may open everything
    done = run(*arguments, prefix=as_root if os.geteuid() == 0 else (), KEYSTOW_DATA_DIR=str(data_dir))
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert "keystow-service: " in done.stderr
    assert "Permission denied" in done.stderr or "EACCES" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_it_is() -> None:
    """-h and --version work as for keystow."""
    assert run("--version").stdout.strip() == version("keystow-service")
    assert "check-config" in run("-h").stdout
