"""The server's port in TLS and mTLS: who gets through, as whom, and what happens when files change."""

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from keystow.v1.storage_pb2 import GetRequest, PutHeader, PutSmallRequest
from keystow.v1.storage_pb2_grpc import StorageServiceStub
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_PROVIDER, RegisterTenantRequest
from keystow.v1.tenants_pb2_grpc import TenantServiceStub
from servers.authority import Authority, Issued, of_unknown_version
from servers.keystow import KeystowServer, keystow_server
from tls.port import TIMEOUT, Files, answer, ask, opened, presented, write_files

OTHERS = Authority("others")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Fit for a server."""
    return write_files(tmp_path)


@pytest.fixture
def server(files: Files, tmp_path: Path) -> Iterator[KeystowServer]:
    """A server that wants client certificates, whose files the test may change."""
    with keystow_server(tmp_path / "data", settings=files.mutual) as running:
        yield running


def callers(server: KeystowServer, calls: int) -> list[str]:
    """Who has called, once so many calls are in the log."""
    return [entry["principal"] for entry in server.told("rpc", calls)]


def silent(server: KeystowServer, event: str) -> bool:
    """Whether the log has no such line, as far as it has arrived."""
    return all(entry["event"] != event for entry in server.log)


def replace(path: Path, data: bytes) -> None:
    """As tools that renew certificates do."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(data)
    new.rename(path)


def install(files: Files, issued: Issued) -> None:
    """The key first, then the certificate."""
    replace(files.folder / "server.key", issued.key_pem)
    replace(files.folder / "server.crt", issued.certificate_pem)


def test_without_client_ca_everybody_is_anonymous(files: Files, tmp_path: Path) -> None:
    """TLS hides and proves the server; a client's certificate is not asked for, and names nobody."""
    with keystow_server(tmp_path / "data", settings=files.settings) as server:
        assert answer(server.address, files.authority.pem) == "OK"
        assert answer(server.address, files.authority.pem, files.authority.client("somebody")) == "OK"
        assert "CERTIFICATE_VERIFY_FAILED" in answer(server.address, OTHERS.pem)
        with grpc.insecure_channel(server.address, options=[("grpc.enable_http_proxy", 0)]) as plain:
            assert ask(plain).startswith("UNAVAILABLE")
        [loaded] = server.told("tls_loaded")
        assert loaded["client_certificates"] == "not asked for"
        assert loaded["serial"] == presented(server.address)
    assert callers(server, 2) == ["anonymous", "anonymous"]
    assert len(server.output) == len(server.log)  # connections that failed wrote nothing of their own


def test_the_certificate_names_the_caller(server: KeystowServer, files: Files) -> None:
    """The SPIFFE id if there is one, else the common name, marked as one."""
    issue, roots = files.authority.client, files.authority.pem
    for client in (
        issue("connector"),
        issue("connector", "spiffe://example.org/connector"),
        issue("", "spiffe://example.org/export"),
        issue("connector", "https://example.org/"),
        issue("spiffe://example.org/connector"),
        issue("anonymous"),
        issue("n" * 64),
    ):
        assert answer(server.address, roots, client) == "OK"
    assert callers(server, 7) == [
        "CN=connector",
        "spiffe://example.org/connector",
        "spiffe://example.org/export",
        "CN=connector",
        "CN=spiffe://example.org/connector",
        "CN=anonymous",
        f"CN={'n' * 64}",
    ]


def test_a_certificate_without_a_usable_name(server: KeystowServer, files: Files) -> None:
    """Nobody acts under half a name: UNAUTHENTICATED, in words, and logged with nobody's name."""
    for name, uris, says in (
        ("", [], "no SPIFFE id and no common name"),
        ("", ["https://example.org/"], "no SPIFFE id and no common name"),
        ("x", ["spiffe://example.org/a", "spiffe://example.org/b"], "further URIs"),
        ("x", ["SPIFFE://example.org/a", "https://example.org/"], "further URIs"),
        ("", ["spiffe://example.org/" + "a" * 236], "longer than 256 bytes"),
        ("line\nend", [], "cannot be shown"),
    ):
        got = answer(server.address, files.authority.pem, files.authority.client(name, *uris))
        assert got.startswith("UNAUTHENTICATED: ")
        assert says in got
    assert callers(server, 6) == ["anonymous"] * 6
    assert {entry["reason"] for entry in server.told("rpc", 6)} == {"CREDENTIALS_INVALID"}


def test_the_longest_name(server: KeystowServer, files: Files) -> None:
    """256 bytes are let through, and stored with what their owner writes."""
    longest = "spiffe://example.org/" + "a" * 235
    client = files.authority.client("", longest)
    with opened(server.address, files.authority.pem, client) as channel:
        TenantServiceStub(channel).RegisterTenant(
            RegisterTenantRequest(
                tenant_id="longest", data_center="us", key_management=KEY_MANAGEMENT_PROVIDER, confirm_permanent=True
            ),
            timeout=TIMEOUT,
        )
        header = PutHeader(tenant_id="longest", key="k", upload_id="00000000-0000-4000-8000-000000000001")
        storage = StorageServiceStub(channel)
        storage.PutSmall(PutSmallRequest(header=header, data=b"1"), timeout=TIMEOUT)
        storage.PutSmall(PutSmallRequest(header=header, data=b"1"), timeout=TIMEOUT)  # repeated by the same caller
    with (
        opened(server.address, files.authority.pem, files.authority.client("other")) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        StorageServiceStub(channel).PutSmall(PutSmallRequest(header=header, data=b"1"), timeout=TIMEOUT)
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert callers(server, 4) == [longest, longest, longest, "CN=other"]


def test_who_does_not_get_through(server: KeystowServer, files: Files) -> None:
    """No certificate, a foreign one, one that has expired, plain text: no RPC begins."""
    authority = files.authority
    assert answer(server.address, authority.pem).startswith("UNAVAILABLE")
    assert answer(server.address, authority.pem, OTHERS.client("connector")).startswith("UNAVAILABLE")
    expired = authority.issue([], common_name="connector", expired=True)
    assert answer(server.address, authority.pem, expired).startswith("UNAVAILABLE")
    with grpc.insecure_channel(server.address, options=[("grpc.enable_http_proxy", 0)]) as plain:
        assert ask(plain).startswith("UNAVAILABLE")
    assert answer(server.address, authority.pem, authority.client("connector")) == "OK"
    assert callers(server, 1) == ["CN=connector"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_versions_of_tls(server: KeystowServer, files: Files) -> None:
    """TLS 1.2 and 1.3 are spoken, nothing older; h2 is agreed on."""
    pair = files.authority.client("c").write(files.folder, "client")
    host, _, port = server.address.rpartition(":")

    def agreed(newest: ssl.TLSVersion) -> tuple[str | None, str | None]:
        context = ssl.create_default_context(cadata=files.authority.pem.decode())
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(*pair)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
        with (
            socket.create_connection((host, int(port)), timeout=TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=host) as wrapped,
        ):
            return wrapped.version(), wrapped.selected_alpn_protocol()

    assert agreed(ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", "h2")
    assert agreed(ssl.TLSVersion.TLSv1_3) == ("TLSv1.3", "h2")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):  # it hangs up
        agreed(ssl.TLSVersion.TLSv1_1)


def test_a_new_certificate_without_a_restart(server: KeystowServer, files: Files) -> None:
    """New connections see it, a stream under way lives on, and the log says which one it is."""
    roots, client = files.authority.pem, files.authority.client("connector")
    renewed = files.authority.server()
    with opened(server.address, roots, client) as channel:
        TenantServiceStub(channel).RegisterTenant(
            RegisterTenantRequest(
                tenant_id="acme", data_center="us", key_management=KEY_MANAGEMENT_PROVIDER, confirm_permanent=True
            ),
            timeout=TIMEOUT,
        )
        header = PutHeader(tenant_id="acme", key="k", upload_id="00000000-0000-4000-8000-000000000001")
        StorageServiceStub(channel).PutSmall(PutSmallRequest(header=header, data=b"1" * 1_500_000), timeout=TIMEOUT)
        get = StorageServiceStub(channel).Get(GetRequest(tenant_id="acme", key="k"), timeout=TIMEOUT)
        assert next(get).header.length == 1_500_000
        install(files, renewed)
        assert presented(server.address) == renewed.serial
        assert answer(server.address, roots, client) == "OK"
        assert sum(len(response.chunk.data) for response in get) == 1_500_000
    [reloaded] = server.told("tls_reloaded")
    assert reloaded["serial"] == renewed.serial
    assert reloaded["not_after"] == renewed.certificate.not_valid_after_utc.isoformat()
    assert "PRIVATE KEY" not in "".join(server.output)


def test_a_half_written_pair(server: KeystowServer, files: Files) -> None:
    """A certificate without its key does not replace a pair that works; the log says so once, then that all is well."""
    roots, client = files.authority.pem, files.authority.client("connector")
    before = presented(server.address)
    renewed = files.authority.server()
    replace(files.folder / "server.crt", renewed.certificate_pem)
    for _ in range(3):
        assert presented(server.address) == before
        assert answer(server.address, roots, client) == "OK"
    replace(files.folder / "server.key", renewed.key_pem)
    assert presented(server.address) == renewed.serial
    assert len(server.told("tls_reloaded")) == 1
    [refused] = server.told("tls_not_reloaded")
    assert refused["in_use"] == before
    assert "does not match" in str(refused["problems"])


def test_files_that_vanish(server: KeystowServer, files: Files) -> None:
    """Nor do files that cannot be read, that hold something else, or that everybody may read."""
    roots, client = files.authority.pem, files.authority.client("connector")
    before = presented(server.address)
    key, certificate = files.folder / "server.key", files.folder / "server.crt"
    kept, kept_certificate = key.read_bytes(), certificate.read_bytes()
    odd = of_unknown_version(files.authority.server().certificate)

    def spoil_certificate() -> None:
        replace(key, kept)
        replace(certificate, odd)

    def spoil_client_ca() -> None:
        replace(certificate, kept_certificate)
        replace(files.folder / "ca.crt", b"")

    for spoil in (
        lambda: key.write_bytes(kept[:100]),
        lambda: key.chmod(0o644),
        key.unlink,
        spoil_certificate,
        spoil_client_ca,
    ):
        spoil()
        assert presented(server.address) == before
        assert answer(server.address, roots, client) == "OK"
    problems = [str(entry["problems"]) for entry in server.told("tls_not_reloaded", 5)]
    said = (
        "tls_private_key: is not a private key",
        "chmod o=",
        "cannot be read",
        "tls_certificate: is not a certificate",
        "tls_client_ca: is not a certificate",
    )
    assert [words in problem for words, problem in zip(said, problems, strict=True)] == [True] * 5


def test_files_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    """The names are links through ..data, and that is what changes, all at once."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    files = write_files(tmp_path / "1")
    renewed = files.authority.server()
    renewed.write(tmp_path / "2", "server")
    files.authority.write(tmp_path / "2")
    (tmp_path / "..data").symlink_to("1")
    for name in ("server.crt", "server.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with keystow_server(tmp_path / "data", settings=Files(files.authority, tmp_path).mutual) as server:
        assert presented(server.address) != renewed.serial
        (tmp_path / "..data_tmp").symlink_to("2")
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")  # noqa: PTH105 - the rename is the point
        assert presented(server.address) == renewed.serial
        assert len(server.told("tls_reloaded")) == 1
        assert silent(server, "tls_not_reloaded")


def test_a_new_client_ca(server: KeystowServer, files: Files) -> None:
    """Added, then alone: both authorities' clients get through, then only the new one's; all in one run."""
    roots = files.authority.pem
    old, new = files.authority.client("connector"), OTHERS.client("connector")
    assert answer(server.address, roots, new).startswith("UNAVAILABLE")
    replace(files.folder / "ca.crt", roots + OTHERS.pem)
    assert [answer(server.address, roots, old), answer(server.address, roots, new)] == ["OK", "OK"]
    replace(files.folder / "ca.crt", OTHERS.pem)
    assert answer(server.address, roots, old).startswith("UNAVAILABLE")
    assert answer(server.address, roots, new) == "OK"


def test_a_server_does_not_start_on_files_that_are_not_fit(files: Files, tmp_path: Path) -> None:
    """It says by name what is wrong, and makes nothing."""
    (files.folder / "server.crt").write_bytes(files.authority.server(expired=True).certificate_pem)
    with pytest.raises(RuntimeError) as refused, keystow_server(tmp_path / "data", settings=files.settings):
        pass
    assert "tls_certificate: expired on " in str(refused.value)
    assert "tls_private_key: does not match tls_certificate" in str(refused.value)
    assert not (tmp_path / "data").exists()
