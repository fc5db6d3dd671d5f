"""``keystow-service health``: asks a running server whether it serves, for container engines and scripts.

It reads the server's own settings: where it listens, and whether in TLS. Exit codes: 0 it serves; 1 it does not, or
nobody answered in time; 2 bad input. One line says which.
"""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from keystow_service.cli_config import ConfigOption, refuse, settings_in_force
from keystow_service.settings import Settings

EXIT_NOT_SERVING = 1

# A server that listens on every address is asked at this one: [::] takes IPv4 as well.
_EVERY_ADDRESS = frozenset({"0.0.0.0", "[::]"})
_LOOPBACK = "127.0.0.1"

Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Where the server listens. [default: the setting listen]"),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the answer.")]
Certificate = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        envvar="KEYSTOW_CLIENT_CERTIFICATE",
        help="A client certificate, if the server wants one. [default: the setting tls_certificate]",
    ),
]
PrivateKey = Annotated[
    Path | None,
    typer.Option("--private-key", envvar="KEYSTOW_CLIENT_KEY", help="Its key. [default: the setting tls_private_key]"),
]


@dataclass(frozen=True, slots=True)
class _ClientFiles:
    certificate: Path
    private_key: Path


def health(
    *,
    config: ConfigOption = None,
    address: Address = None,
    timeout: Timeout = 3.0,
    certificate: Certificate = None,
    private_key: PrivateKey = None,
) -> None:
    """Ask a server whether it serves. A server that drains says that it does not."""
    if (certificate is None) != (private_key is None):
        raise typer.BadParameter("--certificate and --private-key go together")
    settings = settings_in_force(config)
    host, _, port = (address or settings.listen).rpartition(":")
    if not (host and port.isdecimal()):
        raise typer.BadParameter(f"{address} is not HOST:PORT", param_hint="--address")
    given = _ClientFiles(certificate, private_key) if certificate and private_key else None
    status = _ask(_LOOPBACK if host in _EVERY_ADDRESS else host, int(port), timeout, _client_files(settings, given))
    typer.echo(status)
    if status != "SERVING":
        raise typer.Exit(EXIT_NOT_SERVING)


def _client_files(settings: Settings, given: _ClientFiles | None) -> _ClientFiles | None:
    """What to show to a server that speaks TLS; None if it does not."""
    if settings.tls_certificate is None or settings.tls_private_key is None:
        return None
    return given or _ClientFiles(settings.tls_certificate, settings.tls_private_key)


def _ask(host: str, port: int, timeout: float, tls: _ClientFiles | None) -> str:
    """The serving status of grpc.health.v1 for the server as a whole, or the code that the question failed with."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the line says it
    import grpc  # noqa: PLC0415 - reads the variable when it is imported
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # noqa: PLC0415
    from grpc_health.v1.health_pb2_grpc import HealthStub  # noqa: PLC0415

    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    target = f"{host}:{port}"
    if tls is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        try:
            key, certificate = tls.private_key.read_bytes(), tls.certificate.read_bytes()
        except OSError as error:
            refuse([f"{error.filename} cannot be read: {error.strerror}"])
        try:
            shown = ssl.get_server_certificate((host.strip("[]"), port), timeout=timeout)
        except OSError as error:
            return f"no answer: {type(error).__name__}"
        # Whoever answers at this address is the server in question, so its certificate is believed as it is: files
        # that are half replaced do not make a server that serves look dead.
        options.append(("grpc.ssl_target_name_override", _name_in(shown)))
        credentials = grpc.ssl_channel_credentials(shown.encode(), key, certificate)
        channel = grpc.secure_channel(target, credentials, options=options)
    with channel:
        try:
            check = HealthStub(channel).Check  # type: ignore[attr-defined] # its types leave the methods out
            answer = check(HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            return f"no answer: {error.code().name}"
    return HealthCheckResponse.ServingStatus.Name(answer.status)


def _name_in(certificate: str) -> str:
    """A host that the certificate is for."""
    try:
        names = (
            x509.load_pem_x509_certificate(certificate.encode())
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value
        )
    except (
        ValueError,
        x509.InvalidVersion,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        return _LOOPBACK
    hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return hosts[0].replace("*", "health") if hosts else _LOOPBACK
