"""``keystow-service audit …``, as an auditor types it: one process per command."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """What a command ended with."""

    code: int
    output: str
    errors: str

    @property
    def objects(self) -> Sequence[Mapping[str, Any]]:
        """Of --json."""
        return [json.loads(line) for line in self.output.splitlines()]


def audit(folder: Path, *arguments: str | Path) -> Said:
    """Run in a folder, with nothing of the caller's environment that keystow reads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")}
    environment |= {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "keystow_service", "audit", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return Said(done.returncode, done.stdout, done.stderr)
