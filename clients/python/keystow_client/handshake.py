"""Why there is no connection, where TLS is the reason: told in words, and at once, for no repetition helps against it.

gRPC reports a handshake that failed as any other loss of transport, and says why only in a text that is not meant for
people. None of it is passed on. Nothing of a call was sent when it speaks of one.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass

import grpc

from keystow_client.address import Address
from keystow_client.errors import KeystowError, Recovery, TlsError
from keystow_client.tls import Tls

# What gRPC 1.85, and the TLS library in it, say of a connection that did not come about.
_NO_CONNECTION = "failed to connect to all addresses"
_PROBLEMS = (
    ("certificate has expired", "The server's certificate has expired: whoever runs the server has to renew it."),
    ("certificate is not yet valid", "The server's certificate is not valid yet: is the clock of this machine right?"),
    ("CERTIFICATE_VERIFY_FAILED", "The server's certificate was not issued by an authority {trusted}."),
    ("Hostname Verification", "The server's certificate is not for {name}: say as server_name what it is for."),
    ("WRONG_VERSION_NUMBER", "The server at {address} does not speak TLS: {remedy}."),
    ("ALPN", "The server speaks TLS, but not HTTP/2: {address} is another service, or a proxy."),
)
_REASON = re.compile(r"OPENSSL_internal:([A-Z0-9_]+)")
_OF_CLIENTS = re.compile("ALERT_.*(CERTIFICATE|UNKNOWN_CA)")
_HUNG_UP = ("Socket closed", "Connection reset", "Broken pipe")
_BEFORE_THE_HANDSHAKE_ENDED = ("Handshake", "Failed to connect to remote host")
_NO_HTTP2 = "Failed parsing HTTP/2"

_PROBE_PATIENCE = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Handshakes:
    """Those of one client."""

    address: Address
    tls: Tls | None

    async def diagnose(self, error: KeystowError) -> TlsError | None:
        """What keeps the two from talking, if there was no connection, and TLS is the reason."""
        if error.code is not grpc.StatusCode.UNAVAILABLE or _NO_CONNECTION not in error.message:
            return None
        if self.tls is None:
            problem = await self._problem_in_clear(error.message)
        else:
            problem = self._problem_in_tls(self.tls, error.message, first=error.attempts == 1)
        return TlsError(problem, code=error.code, recovery=Recovery.WAIT) if problem else None

    async def _problem_in_clear(self, text: str) -> str:
        if self.address.host and (_hung_up(text) or _NO_HTTP2 in text) and await self._server_speaks_tls():
            return "The server speaks TLS: connect with tls, or with ca_file if it has an authority of its own."
        return ""

    def _problem_in_tls(self, tls: Tls, text: str, *, first: bool) -> str:
        for words, problem in _PROBLEMS:
            if words in text:
                return problem.format(
                    address=self.address.text,
                    name=tls.server_name or self.address.host or "localhost",
                    trusted="in ca_file" if tls.ca_file else "that this machine trusts: name the right one as ca_file",
                    remedy=(
                        "do without it, which loopback allows"
                        if self.address.is_local
                        else "only insecure would connect in clear, which is for protected networks"
                    ),
                )
        reason = found[1] if (found := _REASON.search(text)) else ""
        if reason and not _OF_CLIENTS.search(reason):
            return f"The TLS handshake failed: {reason}."
        # gRPC's server refuses a client without a word, and in TLS 1.3 the client's handshake has ended well by then. A
        # server that is being stopped may look the same, so this is believed only of a call's first failure.
        if not reason and not (first and _hung_up(text)):
            return ""
        if tls.client_certificate is None:
            return "The server hung up on this client: it wants client_certificate and client_key."
        return (
            "The server hung up on this client: it does not accept client_certificate. Either it does not trust who "
            "issued that, or it has expired since this client read it."
        )

    async def _server_speaks_tls(self) -> bool:
        """Asks it. Nothing is sent but the greeting of TLS."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(_PROBE_PATIENCE):
                _, writer = await asyncio.open_connection(self.address.host, self.address.port, ssl=context)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
        return True


def _hung_up(text: str) -> bool:
    """Whether the server, once it had taken the connection and TLS had its say, ended it before HTTP/2 began."""
    return any(words in text for words in _HUNG_UP) and not any(words in text for words in _BEFORE_THE_HANDSHAKE_ENDED)
