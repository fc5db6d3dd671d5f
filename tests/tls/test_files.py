"""``keystow-service check-config`` and the files of TLS: what is wrong is named, all of it at once."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from typer.testing import CliRunner, Result

from keystow_service.cli import app
from servers.authority import (
    Authority,
    of_unknown_version,
    with_a_name_of_another_kind,
    with_one_extension_twice,
)
from tls.port import Files, write_files

PEM, PKCS8 = Encoding.PEM, PrivateFormat.PKCS8
WEAK: Mapping[str, PrivateKeyTypes] = {
    "rsa-1024": rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505 - to be refused
    "p-521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


class Spoiled(NamedTuple):
    """What happens to good files, and what is said about it."""

    spoil: Callable[[Files], object]
    says: list[str]


def change(name: str, data: Callable[[Files], bytes]) -> Callable[[Files], object]:
    """Write something else into one of the files."""
    return lambda files: (files.folder / name).write_bytes(data(files))


def weak(name: str) -> Callable[[Files], object]:
    """A key that not every client accepts, or that is too short."""
    return change("server.key", lambda _: WEAK[name].private_bytes(PEM, PKCS8, NoEncryption()))


def folder(files: Files) -> None:
    """A folder where a file should be."""
    (files.folder / "ca.crt").unlink()
    (files.folder / "ca.crt").mkdir()


def exchange(files: Files) -> None:
    """Each under the other's name."""
    certificate, key = files.folder / "server.crt", files.folder / "server.key"
    contents = certificate.read_bytes(), key.read_bytes()
    key.write_bytes(contents[0])
    certificate.write_bytes(contents[1])


SPOILED: Mapping[str, Spoiled] = {
    "certificate missing": Spoiled(
        lambda files: (files.folder / "server.crt").unlink(),
        ["tls_certificate: {folder}/server.crt cannot be read: No such file or directory"],
    ),
    "key missing": Spoiled(
        lambda files: (files.folder / "server.key").unlink(), ["tls_private_key: {folder}/server.key"]
    ),
    "client CA missing": Spoiled(lambda files: (files.folder / "ca.crt").unlink(), ["tls_client_ca: {folder}/ca.crt"]),
    "a folder": Spoiled(folder, ["tls_client_ca: {folder}/ca.crt cannot be read: Is a directory"]),
    "certificate not PEM": Spoiled(
        change("server.crt", lambda _: b"\xff\0"), ["tls_certificate: is not a certificate"]
    ),
    "certificate cut off": Spoiled(
        change("server.crt", lambda files: (files.folder / "server.crt").read_bytes()[:-40]),
        ["tls_certificate: is not a certificate"],
    ),
    "certificate of an unknown version": Spoiled(
        change("server.crt", lambda files: of_unknown_version(files.authority.server().certificate)),
        ["tls_certificate: is not a certificate"],
    ),
    "key not PEM": Spoiled(change("server.key", lambda _: b"x"), ["tls_private_key: is not a private key"]),
    "the two exchanged": Spoiled(
        exchange, ["tls_certificate: is not a certificate", "tls_private_key: is not a private key"]
    ),
    "key of another": Spoiled(
        change("server.key", lambda files: files.authority.server().key_pem), ["tls_private_key: does not match"]
    ),
    "expired": Spoiled(
        lambda files: files.authority.server(expired=True).write(files.folder, "server"),
        ["tls_certificate: expired on "],
    ),
    "key encrypted": Spoiled(
        change(
            "server.key",
            lambda files: files.authority.server().key.private_bytes(PEM, PKCS8, BestAvailableEncryption(b"canary")),
        ),
        ["tls_private_key: is encrypted"],
    ),
    "key open to all": Spoiled(
        lambda files: (files.folder / "server.key").chmod(0o604),
        ["tls_private_key: every user of this machine may open"],
    ),
    "key too short": Spoiled(
        weak("rsa-1024"), ["tls_private_key: must be ECDSA on P-256 or P-384, or RSA of 2048 bits"]
    ),
    "key of another curve": Spoiled(weak("p-521"), ["tls_private_key: must be"]),
    "key of another kind": Spoiled(weak("ed25519"), ["tls_private_key: must be"]),
    "client CA not PEM": Spoiled(change("ca.crt", lambda _: b""), ["tls_client_ca: is not a certificate"]),
    "client CA is no authority": Spoiled(
        change("ca.crt", lambda files: files.authority.client("c").certificate_pem),
        ["tls_client_ca: holds no certificate"],
    ),
    "client CA of an unknown version": Spoiled(
        change("ca.crt", lambda files: of_unknown_version(files.authority.certificate)),
        ["tls_client_ca: is not a certificate"],
    ),
    "client CA with an extension twice": Spoiled(
        change("ca.crt", lambda files: with_one_extension_twice(files.authority.certificate)),
        ["tls_client_ca: holds no certificate"],
    ),
    "client CA with a name of another kind": Spoiled(
        change("ca.crt", lambda files: with_a_name_of_another_kind(files.authority.server("odd").certificate, "odd")),
        ["tls_client_ca: holds no certificate"],
    ),
    "everything": Spoiled(
        lambda files: [change(name, lambda _: b"x")(files) for name in ("server.crt", "server.key", "ca.crt")],
        ["tls_certificate: is not", "tls_private_key: is not", "tls_client_ca: is not"],
    ),
}


def check_config(environment: Mapping[str, str]) -> Result:
    """The command's outcome."""
    return CliRunner().invoke(app, ["check-config"], env=environment)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Fit for a server."""
    return write_files(tmp_path)


def test_good_files(files: Files) -> None:
    """Are found to be so, for TLS and for mTLS, and then the server may listen anywhere; the key may be its group's."""
    (files.folder / "server.key").chmod(0o640)
    assert check_config(files.settings).exit_code == 0
    result = check_config({**files.mutual, "KEYSTOW_LISTEN": "0.0.0.0:50051"})
    assert result.exit_code == 0
    assert f"tls_client_ca = {files.folder / 'ca.crt'}" in result.stdout


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_wrong_is_named(files: Files, case: str) -> None:
    """One line for each problem, by the name of its setting; exit code 2; nothing of a key is shown."""
    SPOILED[case].spoil(files)
    result = check_config(files.mutual)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    for line, says in zip(lines, SPOILED[case].says, strict=True):
        assert line.startswith(f"keystow-service: {says.format(folder=files.folder)}")
        assert "PRIVATE KEY" not in line.replace("-----BEGIN PRIVATE KEY-----", "")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["CERTIFICATE"], "tls_certificate is set, but tls_private_key is not"),
        (["PRIVATE_KEY"], "tls_private_key is set, but tls_certificate is not"),
        (["CLIENT_CA"], "tls_client_ca is set, but tls_certificate is not"),
        (["CERTIFICATE", "CLIENT_CA"], "tls_certificate is set, but tls_private_key is not"),
    ],
)
def test_settings_that_belong_together(files: Files, names: list[str], says: str) -> None:
    """Half of TLS is none."""
    result = check_config({f"KEYSTOW_TLS_{name}": str(files.folder / "server.crt") for name in names})
    assert (result.exit_code, result.stderr) == (2, f"keystow-service: {says}\n")


def test_tls_alone_keeps_nobody_out(files: Files) -> None:
    """Without client certificates the server listens beyond loopback only if told so in so many words."""
    everywhere = {**files.settings, "KEYSTOW_LISTEN": "0.0.0.0:50051"}
    refused = check_config(everywhere)
    assert refused.exit_code == 2
    assert "TLS alone keeps nobody out: set tls_client_ca" in refused.stderr
    assert check_config({**everywhere, "KEYSTOW_LISTEN_INSECURELY_BEYOND_LOOPBACK": "true"}).exit_code == 0


def test_what_openssl_writes(tmp_path: Path) -> None:
    """Files with text around the blocks, parameters before the key, and RSA in its older form are read as well."""
    files = Files(Authority(), tmp_path)
    files.authority.write(tmp_path)
    common = ["-x509", "-noenc", "-days", "2", "-subj", "/CN=keystow", "-text", "-out", "server.crt"]
    key = tmp_path / "server.key"
    for commands in (
        [
            ["ecparam", "-name", "prime256v1", "-genkey", "-out", "server.key"],
            ["req", *common, "-key", "server.key"],
        ],
        [
            ["genrsa", "-traditional", "-out", "server.key", "2048"],
            ["req", *common, "-key", "server.key"],
        ],
    ):
        for command in commands:
            subprocess.run(["openssl", *command], cwd=tmp_path, check=True, capture_output=True)
        key.chmod(0o600)
        assert check_config(files.mutual).stderr == "The settings are valid.\n"
