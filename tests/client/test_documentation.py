"""docs/client-python.md tells the truth: its examples run, in their order, against a server of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

from client.command import KEYSTOW
from keystow_client.cli.exits import EXPLANATION, ExitCode
from servers.keystow import keystow_server

PAGE = (Path(__file__).parents[2] / "docs" / "client-python.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path) -> None:
    """Every python and sh block, in one directory."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"one")
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    with keystow_server(tmp_path / "server") as server:
        environment = {
            **os.environ,
            "KEYSTOW_ADDRESS": server.address,
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "PATH": f"{KEYSTOW.parent}{os.pathsep}{os.environ['PATH']}",
        }
        for language, block in blocks:
            command = [sys.executable, "-c", block] if language == "python" else ["bash", "-e", "-c", block]
            done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), block
    assert (tmp_path / "2026.csv").read_text(encoding="utf-8") == "year,total\n2026,42\n"
    assert (tmp_path / "restored" / "photos" / "one.jpg").read_bytes() == b"one"


def test_the_exit_codes_are_documented() -> None:
    """The page, --help and the code agree."""
    for code in ExitCode:
        assert re.search(rf"\b{code.value}\b", EXPLANATION), code
        assert re.search(rf"\b{code.value}\b", PAGE[PAGE.index("**Exit codes.**") :]), code
