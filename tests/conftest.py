"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest

# With gRPC's own care for forks, a child that is forked only to become another program can die of it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

pytest.register_assert_rewrite("rpc.wire")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Whoever runs the tests may have a server of their own configured."""
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.startswith("KEYSTOW_") and name != "KEYSTOW_FLOE_KATS":
                environment.delenv(name)
        yield
