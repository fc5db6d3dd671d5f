"""Known answers: where they are, and how many of them a run has checked."""

import os
from collections import Counter
from pathlib import Path

import pytest

CHECKED = pytest.StashKey[Counter[str]]()
ROOT = Path(__file__).parents[2]


def floe_directory() -> Path:
    """KEYSTOW_FLOE_KATS, or beside the checkout."""
    return ROOT / os.environ.get("KEYSTOW_FLOE_KATS", "../shared/vectors/floe")


def pytest_configure(config: pytest.Config) -> None:
    """Start counting."""
    config.stash[CHECKED] = Counter()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each vector; a single one that says so where there are none."""
    if "floe_vector" in metafunc.fixturenames:
        found: list[Path | None] = [*sorted(floe_directory().glob("*_ct.txt"))]
        metafunc.parametrize("floe_vector", found or [None], ids=lambda path: path.stem if path else "absent")


@pytest.fixture
def checked(request: pytest.FixtureRequest) -> Counter[str]:
    """What this run has checked so far, by kind."""
    return request.config.stash[CHECKED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many, so that a run of nothing does not look like success."""
    count = config.stash[CHECKED]
    terminalreporter.write_line(
        f"FLOE known answers: {count['decrypted']} vectors decrypted, {count['encrypted']} encrypted"
    )
    terminalreporter.write_line(
        f"Whole objects: {count['frozen']} frozen; {count['written']} written again, {count['read']} read back"
    )
