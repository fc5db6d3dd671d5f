"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("rpc.wire")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Whoever runs the tests may have a server of their own configured."""
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.startswith("KEYSTOW_") and name != "KEYSTOW_FLOE_KATS":
                environment.delenv(name)
        yield
