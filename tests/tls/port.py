"""Asking a server over TLS, as a client that trusts one authority."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509

from keystow.v1.storage_pb2 import GetServerInfoRequest
from keystow.v1.storage_pb2_grpc import StorageServiceStub
from servers.authority import Authority, Issued

TIMEOUT = 30  # seconds; no call of a test may hang


@dataclass(frozen=True, slots=True)
class Files:
    """A server's files, and the authority behind them."""

    authority: Authority
    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        """KEYSTOW_… variables of TLS."""
        return {
            "KEYSTOW_TLS_CERTIFICATE": str(self.folder / "server.crt"),
            "KEYSTOW_TLS_PRIVATE_KEY": str(self.folder / "server.key"),
        }

    @property
    def mutual(self) -> dict[str, str]:
        """KEYSTOW_… variables of mTLS."""
        return {**self.settings, "KEYSTOW_TLS_CLIENT_CA": str(self.folder / "ca.crt")}


def write_files(folder: Path) -> Files:
    """A new authority's, with a certificate for a server on loopback."""
    authority = Authority()
    authority.write(folder)
    authority.server().write(folder, "server")
    return Files(authority, folder)


def opened(address: str, roots: bytes, client: Issued | None = None) -> grpc.Channel:
    """A channel with a connection of its own."""
    pair = (client.key_pem, client.certificate_pem) if client else (None, None)
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots, *pair), options=options)


def ask(channel: grpc.Channel) -> str:
    """One call: OK, or the code and details it ended with."""
    try:
        StorageServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=TIMEOUT)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def answer(address: str, roots: bytes, client: Issued | None = None) -> str:
    """One call on a new connection."""
    with opened(address, roots, client) as channel:
        return ask(channel)


def presented(address: str) -> str:
    """The serial number of the certificate that a new connection sees."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=TIMEOUT)
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:x}"
