"""``keystow-service health``: asks a running server whether it serves, for container engines and scripts.

Exit codes: 0 it serves; 1 it does not, or nobody answered in time; 2 bad input. One line says which.
"""

from typing import Annotated

import grpc
import typer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

EXIT_NOT_SERVING = 1

# A server that listens on every address is asked at this one: [::] takes IPv4 as well.
_EVERY_ADDRESS = frozenset({"0.0.0.0", "[::]"})
_LOOPBACK = "127.0.0.1"

Address = Annotated[
    str,
    typer.Option("--address", envvar="KEYSTOW_LISTEN", metavar="HOST:PORT", help="Where the server listens."),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the answer.")]


def health(*, address: Address = "127.0.0.1:50051", timeout: Timeout = 3.0) -> None:
    """Ask a server whether it serves. A server that drains says that it does not."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise typer.BadParameter(f"{address} is not HOST:PORT", param_hint="--address")
    status = _ask(f"{_LOOPBACK if host in _EVERY_ADDRESS else host}:{port}", timeout)
    typer.echo(status)
    if status != "SERVING":
        raise typer.Exit(EXIT_NOT_SERVING)


def _ask(address: str, timeout: float) -> str:
    """The serving status of grpc.health.v1 for the server as a whole, or the code that the question failed with."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            check = HealthStub(channel).Check  # type: ignore[attr-defined] # its types leave the methods out
            answer = check(HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            return f"no answer: {error.code().name}"
    return HealthCheckResponse.ServingStatus.Name(answer.status)
