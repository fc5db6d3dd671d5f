"""Whether a connection is in TLS. Never in clear over a network by an option that somebody forgot.

By default connections to loopback and Unix sockets are in clear, and all others in TLS, with the authorities that this
machine trusts.
"""

import os
from dataclasses import dataclass

from keystow_client.address import Address

_TLS = "KEYSTOW_TLS"
_INSECURE = "KEYSTOW_INSECURE"
_PARTS = {
    "ca_file": "KEYSTOW_CA_FILE",
    "client_certificate": "KEYSTOW_CLIENT_CERTIFICATE",
    "client_key": "KEYSTOW_CLIENT_KEY",
    "server_name": "KEYSTOW_SERVER_NAME",
}

_SWITCH = {
    "": None,
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the service; with a client certificate, mTLS. Files are in PEM form, and read when a client is opened.

    ``ca_file`` holds the authorities that may have issued the server's certificate, by default those that this machine
    trusts. ``client_certificate`` (with its intermediate ones after it) and ``client_key`` show who the client is; they
    go together. ``server_name`` is the name in the server's certificate, where the address has another.
    """

    ca_file: StrPath | None = None
    client_certificate: StrPath | None = None
    client_key: StrPath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for half a pair."""
        if (self.client_certificate is None) != (self.client_key is None):
            missing = "client_key" if self.client_key is None else "client_certificate"
            raise ValueError(f"client_certificate and client_key go together: {missing} is missing")


def protection(address: Address, tls: Tls | None, *, insecure: bool) -> Tls | None:
    """What a connection to the address is protected by; None is in clear. Raises ValueError for contradictions.

    What the caller leaves open the environment settles, and what that leaves open the address does.
    """
    if tls is not None and insecure:
        raise ValueError("insecure is a connection without TLS: leave out either of them")
    if tls is not None or insecure:
        return tls
    wanted, parts = _switch(_TLS), tls_in_environment()
    if _switch(_INSECURE):
        if wanted or parts:
            raise ValueError(
                f"{_INSECURE} is a connection without TLS: unset either it or {_TLS} and {_PARTS['ca_file']}"
            )
        return None
    if wanted is False and not address.is_local:
        raise ValueError(
            f"{_TLS} is false, and {address.text} is beyond loopback, where everything would go over the network in "
            f"clear: unset it, or set {_INSECURE}=true as well if that network is protected"
        )
    if wanted is False or not (wanted or parts or not address.is_local):
        return None
    return Tls(**parts)


def tls_in_environment() -> dict[str, str]:
    """What the environment says about TLS, by the names of Tls."""
    return {name: value for name, variable in _PARTS.items() if (value := os.environ.get(variable))}


def _switch(variable: str) -> bool | None:
    text = os.environ.get(variable, "")
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise ValueError(f"{variable} is {text}, and has to be true or false") from None
