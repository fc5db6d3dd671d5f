"""The files that TLS needs, read and checked before anything is connected, so that a mistake is told by its name.

gRPC would take whatever it is given and fail at the first call, without saying why.
"""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from keystow_client.tls import StrPath, Tls

_MAX_SIZE = 1 << 20
_CURVES = ("secp256r1", "secp384r1")  # those that gRPC can use


def read_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """What the files hold, as gRPC takes it. Raises ValueError, which says by name what is wrong."""
    roots = _system_roots() if tls.ca_file is None else _pem(_certificates("ca_file", tls.ca_file))
    if tls.client_certificate is None or tls.client_key is None:
        return grpc.ssl_channel_credentials(roots)
    chain = _certificates("client_certificate", tls.client_certificate)
    key = _private_key("client_key", tls.client_key)
    if key.public_key() != _public_key(chain[0]):
        raise ValueError("client_key does not fit client_certificate: they are not of one pair")
    _require_valid_now("client_certificate", chain[0])
    # In one form, so that nothing depends on how gRPC reads what stands between the blocks.
    return grpc.ssl_channel_credentials(
        roots, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _pem(chain)
    )


def _system_roots() -> bytes | None:
    """The authorities that this machine trusts, or None if OpenSSL finds none: then gRPC takes its own, Mozilla's.

    Left to itself gRPC always takes its own, and an organisation's authority that is installed here does not count.
    """
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None


def _read(name: str, path: StrPath) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_SIZE)
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from None


def _certificates(name: str, path: StrPath) -> list[x509.Certificate]:
    data = _read(name, path)
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion):
        raise ValueError(f"{name}: {path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from None


def _private_key(name: str, path: StrPath) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    data = _read(name, path)
    try:
        key: PrivateKeyTypes = load_pem_private_key(data, password=None)
    except TypeError:
        raise ValueError(f"{name}: {path} is encrypted; store the key decrypted, readable by its owner alone") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{name}: {path} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)") from None
    if isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES
    ):
        return key
    raise ValueError(f"{name}: the key in {path} has to be RSA, or ECDSA on P-256 or P-384")


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _require_valid_now(name: str, certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise ValueError(f"{name}: expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now < certificate.not_valid_before_utc:
        raise ValueError(f"{name}: is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
