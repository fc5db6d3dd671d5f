"""Where the command ``keystow`` begins: outside the package, for whoever imports that has imported gRPC."""

import os
import sys


def main() -> None:
    """Run it. Why a connection fails is said by the command, so gRPC need not write lines of its own to stderr."""
    _hold_standard_streams()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC is imported
    from keystow_client.cli import main as run  # noqa: PLC0415

    run()


def _hold_standard_streams() -> None:
    """Take the numbers of standard streams that are closed: the next file or connection must not get the results.

    What is written to standard output fails then, as it should; complaints to nobody do not.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest number that is free, so this one
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)  # noqa: PLR2004 - standard error
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as the interpreter would have
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as the interpreter would have
