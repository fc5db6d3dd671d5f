"""The server's certificate, private key and client CA: read from files, checked together, and again when they change.

What is not fit for use never takes the place of what is: a certificate whose key is still the old one, as while files
are being replaced, is told to the log once and left alone.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from keystow_service.model import ServerIdentity

log = structlog.get_logger(__name__)

_MAX_FILE_SIZE = 1 << 20
_MIN_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1")  # those that every gRPC client accepts


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where they are. ``client_ca`` makes certificates of clients required."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


class TlsFilesError(Exception):
    """The files are not fit for use; ``problems`` says why, by the names of their settings, for the operator."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def read_tls_files(files: TlsFiles) -> ServerIdentity:
    """What the files hold. Raises TlsFilesError."""
    return _identity(_read(files))


class WatchedTlsFiles:
    """The newest of what the files held that was fit for use."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsFilesError."""
        self._files = files
        self._contents = _read(files)
        self._identity = _identity(self._contents)
        self._complaints: Sequence[str] = ()
        self._tell("tls_loaded")

    def current(self) -> ServerIdentity:
        """Called for every connection: reads some kilobytes, and parses them only if they are others than before.

        Contents are compared, not times: no change escapes, however the files were replaced.
        """
        try:
            contents = _read(self._files)
            if contents != self._contents:
                self._identity = _identity(contents)
                self._contents = contents
                self._tell("tls_reloaded")
            self._complaints = ()
        except TlsFilesError as error:
            if error.problems != self._complaints:
                self._complaints = error.problems
                log.error("tls_not_reloaded", problems=error.problems, in_use=self._identity.serial)  # noqa: TRY400 - the problems say it all
        return self._identity

    def _tell(self, event: str) -> None:
        log.info(
            event,
            serial=self._identity.serial,
            not_after=self._identity.not_after.isoformat(),
            client_certificates="required" if self._identity.client_ca else "not asked for",
        )


_Contents = tuple[bytes, bytes, bytes | None]


def _read(files: TlsFiles) -> _Contents:
    problems: list[str] = []

    def contents(name: str, path: Path, *, secret: bool = False) -> bytes:
        try:
            with path.open("rb") as file:
                if secret and os.fstat(file.fileno()).st_mode & stat.S_IRWXO:
                    problems.append(f"{name}: every user of this machine may open {path}: chmod o= {path}")
                return file.read(_MAX_FILE_SIZE)
        except OSError as error:
            problems.append(f"{name}: {path} cannot be read: {error.strerror}")
            return b""

    read = (
        contents("tls_certificate", files.certificate),
        contents("tls_private_key", files.private_key, secret=True),
        contents("tls_client_ca", files.client_ca) if files.client_ca else None,
    )
    if problems:
        raise TlsFilesError(problems)
    return read


def _identity(contents: _Contents) -> ServerIdentity:
    certificate, private_key, client_ca = contents
    problems: list[str] = []
    chain = _certificates("tls_certificate", certificate, problems)
    key = _private_key(private_key, problems)
    authorities = [] if client_ca is None else _certificates("tls_client_ca", client_ca, problems)
    if chain and (problem := _out_of_time(chain[0])):
        problems.append(f"tls_certificate: {problem}")
    if chain and key and key.public_key() != _public_key(chain[0]):
        problems.append("tls_private_key: does not match tls_certificate: they are not of one pair")
    if authorities and not any(_is_authority(each) and not _out_of_time(each) for each in authorities):
        problems.append("tls_client_ca: holds no certificate of an authority (CA) that is valid now")
    if problems or key is None:
        raise TlsFilesError(problems)
    # In one form, so that nothing depends on how the TLS library reads what stands between the blocks.
    return ServerIdentity(
        certificate_chain=_pem(chain),
        private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        client_ca=_pem(authorities) if authorities else None,
        serial=f"{chain[0].serial_number:x}",
        not_after=chain[0].not_valid_after_utc,
    )


def _certificates(name: str, data: bytes, problems: list[str]) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion):
        problems.append(f"{name}: is not a certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        return []


def _private_key(data: bytes, problems: list[str]) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None:
    try:
        key: PrivateKeyTypes = load_pem_private_key(data, password=None)
    except TypeError:
        problems.append("tls_private_key: is encrypted; store it decrypted, readable by the server alone")
        return None
    except (ValueError, UnsupportedAlgorithm):
        problems.append("tls_private_key: is not a private key in PEM form (-----BEGIN PRIVATE KEY-----)")
        return None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _MIN_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    problems.append(f"tls_private_key: must be ECDSA on P-256 or P-384, or RSA of {_MIN_RSA_BITS} bits or more")
    return None


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _out_of_time(certificate: x509.Certificate) -> str:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
