"""Where the command ``keystow`` begins: outside the package, for whoever imports that has imported gRPC."""

import os


def main() -> None:
    """Run it. Why a connection fails is said by the command, so gRPC need not write lines of its own to stderr."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC is imported
    from keystow_client.cli import main as run  # noqa: PLC0415

    run()
