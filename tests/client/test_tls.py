"""The client in TLS and mTLS: what gets through, what does not and why, and that nothing goes in clear by accident."""

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from client.conftest import PATIENT
from client.content import noise
from client.relay import Relay
from client.scripted import MIB, ScriptedServer
from client.secured import OTHERS, Secured
from keystow_client import (
    AsyncClient,
    Client,
    KeyManagement,
    KeystowError,
    Recovery,
    RetryPolicy,
    Tls,
    TlsError,
    TransportError,
)
from servers.authority import Issued, of_unknown_version
from servers.keystow import KeystowServer
from servers.listener import listening

# Nothing in front of a loopback address says that it is one, and no packet leaves the machine.
EVERY_ADDRESS = "0.0.0.0"


async def refusal(address: str, tls: Tls | None = None, **options: Any) -> KeystowError:
    """How a call fails that is allowed to go on for minutes."""
    async with AsyncClient(address, tls=tls, **options) as client:
        with pytest.raises(KeystowError) as failure:
            await client.server_info()
    return failure.value


def say(error: KeystowError, *words: str) -> None:
    """The failure is told at once and for good, in our own words."""
    assert type(error) is TlsError
    assert (error.attempts, error.recovery, error.code) == (1, Recovery.WAIT, grpc.StatusCode.UNAVAILABLE)
    for each in words:
        assert each in error.message
    for foreign in ("SSL", "TSI", "ipv4:", "_", "last error", "Socket"):
        assert foreign not in error.message.replace("ca_file", "").replace("client_", "").replace("server_name", "")


# --- What gets through ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutual", [False, True])
async def test_the_round_trip(secured: Secured, mutual: bool) -> None:  # noqa: FBT001 - pytest passes it so
    """A tenant, a streamed object and its way back, in TLS and in mTLS."""
    server, tls = (secured.mutual, secured.connector) if mutual else (secured.server, secured.trusting)
    data = noise(3 * MIB + 7)
    async with AsyncClient(server.address, tls=tls) as client:
        await client.register_tenant(
            "acme", data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True
        )
        await client.put("acme", "k", data)
        async with await client.get("acme", "k") as download:
            assert b"".join([chunk async for chunk in download]) == data


def test_the_synchronous_client(secured: Secured) -> None:
    """The same options; the server knows the client by its certificate."""
    with Client(secured.mutual.address, tls=secured.connector) as client:
        client.list_data_centers()
    assert "CN=connector" in [entry["principal"] for entry in secured.mutual.told("rpc")]


async def test_a_server_by_another_name(secured: Secured) -> None:
    """What the certificate is for may be said, where the address is another."""
    issued = secured.authority.server("backups.example.org")
    with scripted(issued) as server:
        async with AsyncClient(
            server.address, tls=replace(secured.trusting, server_name="backups.example.org")
        ) as client:
            await client.server_info()


async def test_broken_connections_in_tls(secured: Secured) -> None:
    """A Put goes on where it broke off; a connection that is refused meanwhile does not end it."""
    data = noise(12 * MIB)
    port = int(secured.mutual.address.rpartition(":")[2])
    with Relay(port) as relay:
        relay.cuts.extend([("sent", 4 * MIB), ("refused", 0), ("sent", 100), ("sent", 4 * MIB)])
        async with AsyncClient(relay.address, tls=secured.connector, retry=PATIENT) as client:
            await client.register_tenant(
                "cut", data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True
            )
            await client.put("cut", "k", data, resumable=True)
            async with await client.get("cut", "k") as download:
                assert b"".join([chunk async for chunk in download]) == data
        assert not relay.cuts


async def test_the_authorities_of_this_machine(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ca_file they are asked, not those that gRPC brings."""
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.folder / "ca.crt"))
    async with AsyncClient(secured.server.address, tls=Tls()) as client:
        await client.server_info()


# --- What does not ----------------------------------------------------------------------------------------------------


@contextmanager
def scripted(issued: Issued) -> Iterator[ScriptedServer]:
    """A server with any certificate, which the real one might refuse to start with."""
    credentials = grpc.ssl_server_credentials([(issued.key_pem, issued.certificate_pem)])
    with ScriptedServer(credentials) as server:
        yield server


async def test_a_server_that_is_not_trusted(secured: Secured) -> None:
    """A certificate of an unknown authority, with ca_file and without, is said to be that."""
    say(await refusal(secured.server.address, Tls(secured.folder / "others.crt")), "an authority in ca_file")
    say(await refusal(secured.server.address, Tls()), "name the right one as ca_file")


async def test_a_server_of_another_name(secured: Secured) -> None:
    """The name that the certificate should have is told."""
    tls = replace(secured.trusting, server_name="backups.example.org")
    say(await refusal(secured.server.address, tls), "not for backups.example.org")


async def test_an_expired_server(secured: Secured) -> None:
    """Not this client's fault, and told as such."""
    with scripted(secured.authority.server(expired=True)) as server:
        say(await refusal(server.address, secured.trusting), "has expired", "renew")


async def test_a_server_that_wants_a_certificate(secured: Secured) -> None:
    """None, and one of another authority's, are told apart."""
    say(await refusal(secured.mutual.address, secured.trusting), "wants client_certificate and client_key")
    foreign = secured.showing(OTHERS.client("connector"), "foreign")
    say(await refusal(secured.mutual.address, foreign), "does not accept client_certificate")


async def test_a_server_that_gives_a_reason(secured: Secured) -> None:
    """Alerts of TLS: those about the client's certificate in words, others by their name."""
    for alert, tls, says in (
        (116, secured.trusting, "it wants client_certificate"),  # certificate_required
        (48, secured.connector, "does not accept client_certificate"),  # unknown_ca
        (45, secured.connector, "does not accept client_certificate"),  # certificate_expired
        (40, secured.connector, "The TLS handshake failed: SSLV3_ALERT_HANDSHAKE_FAILURE."),
    ):

        async def refuse(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            record: bytes = bytes((21, 3, 3, 0, 2, 2, alert)),
        ) -> None:
            await reader.read(1 << 16)
            writer.write(record)
            await writer.drain()

        async with listening(refuse) as port:
            error = await refusal(f"127.0.0.1:{port}", tls)
        assert (type(error), error.attempts) == (TlsError, 1)
        assert says in error.message


async def test_every_kind_of_call_is_told(secured: Secured) -> None:
    """Streams find it out as simple calls do, and a source is not used up."""
    async with AsyncClient(secured.server.address, tls=Tls(secured.folder / "others.crt")) as client:
        with pytest.raises(TlsError):
            await client.put("acme", "k", bytes(3 * MIB))
        with pytest.raises(TlsError):
            await client.put("acme", "k", b"small")
        with pytest.raises(TlsError):
            await client.get("acme", "k")
        with pytest.raises(TlsError):
            await client.delete("acme", "k")
        with pytest.raises(TlsError):
            await client.export("acme", io.BytesIO())


async def test_a_server_in_clear(real_server: KeystowServer, secured: Secured) -> None:
    """TLS against a port without it."""
    say(await refusal(real_server.address, secured.trusting), "does not speak TLS", "loopback")


async def test_a_server_in_tls(secured: Secured) -> None:
    """No TLS against a port with it, mutual or not."""
    for server in (secured.server, secured.mutual):
        say(await refusal(server.address), "The server speaks TLS", "ca_file")


async def test_what_passes_is_waited_for(secured: Secured) -> None:
    """A server that is not there, and one that hangs up on everybody, are no matter of TLS."""
    thrice = RetryPolicy(max_attempts=3, initial_delay=0.001, max_delay=0.01)
    for tls in (None, secured.connector):
        error = await refusal("127.0.0.1:1", tls, retry=thrice)
        assert (type(error), error.attempts) == (TransportError, 3)

        async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
            pass

        async with listening(hang_up) as port:
            error = await refusal(f"127.0.0.1:{port}", tls, retry=thrice)
        assert (type(error), error.attempts) == (TransportError, 3)


# --- Nothing in clear by accident -------------------------------------------------------------------------------------


async def test_beyond_loopback_nothing_is_sent_in_clear(real_server: KeystowServer) -> None:
    """Whoever forgets every option gets TLS: what arrives is its greeting, and the call fails."""
    arrived: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        arrived.append(await reader.read(1 << 16))

    once = RetryPolicy(max_attempts=1)
    async with listening(hear) as port:
        assert isinstance(await refusal(f"{EVERY_ADDRESS}:{port}", retry=once), TransportError)
    assert {greeting[:2] for greeting in arrived} == {b"\x16\x03"}  # a handshake record of TLS
    port = int(real_server.address.rpartition(":")[2])
    say(await refusal(f"{EVERY_ADDRESS}:{port}"), "does not speak TLS", "only insecure would connect in clear")


async def test_in_so_many_words(real_server: KeystowServer) -> None:
    """The option connects in clear wherever that is; beside TLS it makes no sense."""
    address = f"{EVERY_ADDRESS}:{real_server.address.rpartition(':')[2]}"
    async with AsyncClient(address, insecure=True) as client:
        await client.server_info()
    with pytest.raises(ValueError, match="leave out either"):
        Client(address, tls=Tls(), insecure=True)


async def test_no_proxy_for_this_machine(real_server: KeystowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in clear because it stays here is not handed to the environment's proxy."""
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1 << 16))

    async with listening(proxy) as port:
        for name in ("http_proxy", "grpc_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        async with AsyncClient(real_server.address) as client:
            await client.server_info()
    assert asked == []


@pytest.mark.parametrize(
    ("address", "in_clear"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.10:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/keystow.sock", True),
        ("0.0.0.0:1", False),
        ("10.0.0.7:1", False),
        ("[2001:db8::1]:1", False),
        ("[::ffff:10.0.0.7]:1", False),
        ("localhost.example.org:1", False),
        ("127.0.0.1.example.org:1", False),
        ("keystow:50051", False),
    ],
)
async def test_which_addresses_are_in_clear(
    address: str,
    in_clear: bool,  # noqa: FBT001 - pytest passes it so
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loopback and Unix sockets, by their own look; said with KEYSTOW_TLS=false anything else is refused."""
    monkeypatch.setenv("KEYSTOW_TLS", "false")
    if in_clear:
        async with AsyncClient(address):
            return
    with pytest.raises(ValueError, match="beyond loopback"):
        AsyncClient(address)


@pytest.mark.parametrize(
    "address",
    ["keystow", "::1:50051", "http://keystow:50051", "127.0.0.1:1,10.0.0.7:1", "dns:///keystow:1", "a:70000", ":1"],
)
def test_what_is_no_address(address: str) -> None:
    """It is told before anything is looked up."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client(address)


# --- Files ------------------------------------------------------------------------------------------------------------


def test_files_that_are_not_fit(secured: Secured, tmp_path: Path) -> None:
    """Each is told by the name of its option when the client is opened, and no thread stays behind."""
    ca, certificate, key = secured.connector.ca_file, secured.connector.client_certificate, secured.connector.client_key
    other_key = OTHERS.client("c").write(tmp_path, "other")[1]
    expired = secured.authority.issue([], common_name="c", expired=True).write(tmp_path, "expired")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "odd").write_bytes(of_unknown_version(secured.authority.certificate))
    encrypted = secured.authority.client().key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "encrypted").write_bytes(encrypted)
    threads = threading.active_count()
    for tls, says in (
        (Tls(tmp_path / "missing"), "ca_file: .*missing cannot be read: No such file"),
        (Tls(tmp_path), "ca_file: .* cannot be read: Is a directory"),
        (Tls(tmp_path / "text"), "ca_file: .*text holds no certificate in PEM form"),
        (Tls(tmp_path / "odd"), "ca_file: .*odd holds no certificate in PEM form"),
        (Tls(ca, tmp_path / "odd", key), "client_certificate: .*odd holds no certificate"),
        (Tls(ca, tmp_path / "text", key), "client_certificate: .*text holds no certificate"),
        (Tls(ca, certificate, tmp_path / "missing"), "client_key: .*missing cannot be read"),
        (Tls(ca, certificate, tmp_path / "text"), "client_key: .*text holds no private key"),
        (Tls(ca, certificate, certificate), "client_key: .*connector.crt holds no private key"),
        (Tls(ca, certificate, tmp_path / "encrypted"), "client_key: .*encrypted is encrypted"),
        (Tls(ca, certificate, other_key), "client_key does not fit client_certificate"),
        (Tls(ca, *expired), "client_certificate: expired on "),
    ):
        with pytest.raises(ValueError, match=says), Client("127.0.0.1:1", tls=tls):
            pass
    assert threading.active_count() <= threads
    with pytest.raises(ValueError, match="go together: client_key is missing"):
        Tls(ca, certificate)
    with pytest.raises(ValueError, match="go together: client_certificate is missing"):
        Tls(ca, client_key=key)


def test_files_are_read_again_by_the_next_client(secured: Secured, tmp_path: Path) -> None:
    """A certificate and key in one file, renewed between two clients."""
    both = tmp_path / "both.pem"
    for name in ("first", "second"):
        issued = secured.authority.client(name)
        both.write_bytes(issued.key_pem + issued.certificate_pem)
        with Client(secured.mutual.address, tls=Tls(str(secured.folder / "ca.crt"), str(both), str(both))) as client:
            client.server_info()
    assert {"CN=first", "CN=second"} <= {entry["principal"] for entry in secured.mutual.told("rpc", 2)}
