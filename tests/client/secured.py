"""Real servers in TLS and in mTLS, and what their clients need."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keystow_client import Tls
from servers.authority import Authority, Issued
from servers.keystow import KeystowServer, keystow_server

OTHERS = Authority("others")


@dataclass(frozen=True)
class Secured:
    """The two servers; what belongs to clients is in ``folder``: ca, others, connector."""

    authority: Authority
    folder: Path
    server: KeystowServer
    mutual: KeystowServer

    @property
    def trusting(self) -> Tls:
        """Trusts the servers, and shows nothing."""
        return Tls(self.folder / "ca.crt")

    @property
    def connector(self) -> Tls:
        """Trusts the servers, and is trusted by them."""
        return Tls(self.folder / "ca.crt", self.folder / "connector.crt", self.folder / "connector.key")

    def showing(self, issued: Issued, name: str) -> Tls:
        """Trusts the servers, and shows them this."""
        return Tls(self.folder / "ca.crt", *issued.write(self.folder, name))

    @property
    def variables(self) -> Mapping[str, str]:
        """The connector's, of the environment."""
        return {
            "KEYSTOW_CA_FILE": str(self.folder / "ca.crt"),
            "KEYSTOW_CLIENT_CERTIFICATE": str(self.folder / "connector.crt"),
            "KEYSTOW_CLIENT_KEY": str(self.folder / "connector.key"),
        }


@contextmanager
def secured_servers(folder: Path) -> Iterator[Secured]:
    """Under an authority of their own, which no machine trusts."""
    authority = Authority()
    authority.write(folder)
    OTHERS.write(folder, "others")
    authority.client("connector").write(folder, "connector")
    certificate, key = authority.server().write(folder, "server")
    tls = {"KEYSTOW_TLS_CERTIFICATE": str(certificate), "KEYSTOW_TLS_PRIVATE_KEY": str(key)}
    mutual = {**tls, "KEYSTOW_TLS_CLIENT_CA": str(folder / "ca.crt")}
    # A shell that has the client's variables may start a server all the same.
    mutual |= {"KEYSTOW_TLS": "true", "KEYSTOW_CA_FILE": str(folder / "ca.crt")}
    with (
        keystow_server(folder / "data", settings=tls) as server,
        keystow_server(folder / "mutual", settings=mutual) as of_known_clients,
    ):
        yield Secured(authority, folder, server, of_known_clients)
