"""A tiny certificate authority: certificates of servers and clients, made when a test wants them."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, as files say them."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def serial(self) -> str:
        """The serial number, as logs say it."""
        return f"{self.certificate.serial_number:x}"

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """NAME.crt and NAME.key, which only its owner reads."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate_pem)
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return certificate, key


class Authority:
    """Issues certificates. Two of them trust nothing of each other's."""

    def __init__(self, name: str = "tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            self._certificate(self._name, self._key.public_key(), -_DAY, 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def write(self, folder: Path, name: str = "ca") -> Path:
        """NAME.crt."""
        path = folder / f"{name}.crt"
        path.write_bytes(self.pem)
        return path

    def server(self, *hosts: str, expired: bool = False) -> Issued:
        """For a server, by default on IPv4's loopback and localhost."""
        return self.issue(_alternatives(hosts or ("127.0.0.1", "localhost")), common_name="keystow", expired=expired)

    def client(self, common_name: str = "", *uris: str) -> Issued:
        """For a client, named by its subject or by URIs such as a SPIFFE id."""
        return self.issue([x509.UniformResourceIdentifier(uri) for uri in uris], common_name=common_name)

    def issue(self, alternatives: list[x509.GeneralName], *, common_name: str = "", expired: bool = False) -> Issued:
        """Any end-entity certificate; an empty ``common_name`` leaves the subject empty."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        begin, end = (-2 * _DAY, -_DAY) if expired else (-_DAY, 7 * _DAY)
        builder = self._certificate(x509.Name(attributes), key.public_key(), begin, end)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not attributes)
        return Issued(builder.sign(self._key, hashes.SHA256()), key)

    def _certificate(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, begin: timedelta, end: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
        )


def of_unknown_version(certificate: x509.Certificate) -> bytes:
    """The certificate in PEM form, but of version 8, which does not exist."""
    return _patched(certificate, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07")


def with_one_extension_twice(authority: x509.Certificate) -> bytes:
    """The authority's certificate in PEM form, whose key usage says once more that it is an authority."""
    key_usage, basic_constraints = b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x13"
    return _patched(authority, key_usage, basic_constraints)


def with_a_name_of_another_kind(certificate: x509.Certificate, host: str) -> bytes:
    """The certificate of this host in PEM form, whose name is said to be an X.400 address, as nobody has them."""
    name = bytes([len(host)]) + host.encode()
    return _patched(certificate, b"\x82" + name, b"\xa3" + name)


def _patched(certificate: x509.Certificate, old: bytes, new: bytes) -> bytes:
    data = certificate.public_bytes(Encoding.DER)
    assert data.count(old) == 1
    return ssl.DER_cert_to_PEM_cert(data.replace(old, new)).encode()


def _alternatives(hosts: tuple[str, ...]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names
