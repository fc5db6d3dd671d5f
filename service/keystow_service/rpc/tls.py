"""TLS as gRPC knows it: the port's credentials, and who a client's certificate says the caller is.

gRPC takes TLS 1.2 and 1.3 only, and h2 by ALPN. It has verified a client's certificate before any RPC begins.
"""

from collections.abc import Callable, Iterable, Mapping

import grpc

from keystow_service.envelope.sealing import MAX_PRINCIPAL_SIZE
from keystow_service.errors import CredentialsInvalidError
from keystow_service.model import ANONYMOUS, Caller, ServerIdentity

_SPIFFE = "spiffe://"


def server_credentials(current: Callable[[], ServerIdentity]) -> grpc.ServerCredentials:
    """For a port that presents, to each new connection, the identity that is ``current`` then.

    Streams under way keep the connection that they have. ``current`` is called from gRPC's own threads, one at a time.
    Whether clients need certificates is settled by the first identity.
    """
    used = current()

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        identity = current()
        if identity is used:
            return None
        used = identity
        return _configuration(identity)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        newer,  # type: ignore[arg-type] # its types leave out that None means no change
        require_client_authentication=used.client_ca is not None,
    )


def _configuration(identity: ServerIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.private_key, identity.certificate_chain)], identity.client_ca
    )


def caller_of(auth_context: Mapping[str, Iterable[bytes]], *, certificate_required: bool) -> Caller:
    """The principal: the certificate's SPIFFE id, or else its subject's common name as ``CN=name``.

    With that prefix no common name can pass for a SPIFFE id, nor for the anonymous caller. Raises
    CredentialsInvalidError, so that nobody acts under half a name.
    (https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md)
    """
    if not certificate_required:
        return ANONYMOUS
    if "x509_pem_cert" not in auth_context:
        raise CredentialsInvalidError("The call came without a client certificate.")
    uris = _texts(auth_context, "peer_uri")
    names = _texts(auth_context, "x509_common_name")
    if any(uri.lower().startswith(_SPIFFE) for uri in uris):
        if len(uris) > 1:
            raise CredentialsInvalidError("The client certificate has a SPIFFE id and further URIs; it may have one.")
        principal = uris[0]
    elif names and names[0]:
        principal = f"CN={names[0]}"
    else:
        raise CredentialsInvalidError("The client certificate names nobody: it has no SPIFFE id and no common name.")
    if len(principal.encode()) > MAX_PRINCIPAL_SIZE or not principal.isprintable():
        raise CredentialsInvalidError(
            "The name in the client certificate cannot be used: "
            f"it is longer than {MAX_PRINCIPAL_SIZE} bytes, or has characters that cannot be shown."
        )
    return Caller(principal)


def _texts(auth_context: Mapping[str, Iterable[bytes]], name: str) -> list[str]:
    return [value.decode(errors="replace") for value in auth_context.get(name, ())]
