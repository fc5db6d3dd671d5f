"""``keystow-service health``, as a container engine runs it: one process per question."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from keystow.v1.storage_pb2 import Chunk, GetRequest, PutFinish, PutHeader, PutRequest
from keystow.v1.storage_pb2_grpc import StorageServiceStub
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_PROVIDER, RegisterTenantRequest
from keystow.v1.tenants_pb2_grpc import TenantServiceStub
from servers.authority import Authority, with_a_name_of_another_kind
from servers.keystow import KeystowServer, keystow_server
from tls.port import write_files

_MIB = 1 << 20
_SIZE = 64 * _MIB
_TIMEOUT = 30  # seconds; no call of a test may hang


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeystowServer]:
    with keystow_server(tmp_path_factory.mktemp("data")) as running:
        yield running


def health(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")}
    done = subprocess.run(
        [sys.executable, "-m", "keystow_service", "health", *arguments],
        env={**outside, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_serving(server: KeystowServer) -> None:
    """A server that serves is told by the word and by exit code 0."""
    assert health("--address", server.address) == (0, "SERVING\n", "")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_asks_where_the_server_was_told_to_listen(server: KeystowServer, host: str) -> None:
    """KEYSTOW_LISTEN is the default, and one that stands for every address is asked at loopback."""
    port = server.address.rpartition(":")[2]
    permitted = {"KEYSTOW_LISTEN_INSECURELY_BEYOND_LOOPBACK": "true"}
    assert health(KEYSTOW_LISTEN=f"{host}:{port}", **permitted) == (0, "SERVING\n", "")


def test_no_proxy_is_asked(server: KeystowServer) -> None:
    """A proxy in the environment is for what is outside the container."""
    assert health("--address", server.address, http_proxy="http://127.0.0.1:9") == (0, "SERVING\n", "")


def test_draining(tmp_path: Path) -> None:
    """A server that was told to stop, and waits for a Get that nobody reads, says NOT_SERVING: exit code 1."""
    with keystow_server(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        TenantServiceStub(channel).RegisterTenant(
            RegisterTenantRequest(
                tenant_id="acme", data_center="us", key_management=KEY_MANAGEMENT_PROVIDER, confirm_permanent=True
            ),
            timeout=_TIMEOUT,
        )
        storage = StorageServiceStub(channel)
        for _ in storage.Put(_put("big"), timeout=_TIMEOUT):
            pass
        get = storage.Get(GetRequest(tenant_id="acme", key="big"), timeout=_TIMEOUT)
        assert next(get).header.length == _SIZE
        health_of = HealthStub(channel)
        watch = health_of.Watch(HealthCheckRequest(), timeout=_TIMEOUT)  # type: ignore[attr-defined] # not in its types
        assert next(watch).status == HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == HealthCheckResponse.NOT_SERVING
        assert health("--address", server.address) == (1, "NOT_SERVING\n", "")
        watch.cancel()
        get.cancel()


def test_over_tls(tmp_path: Path) -> None:
    """By the server's own settings: in TLS, and with its own certificate where one is wanted, or with another's."""
    files = write_files(tmp_path)
    client = files.authority.client("health").write(tmp_path, "health")
    with keystow_server(tmp_path / "data", settings=files.mutual) as server:
        asked = {**files.mutual, "KEYSTOW_LISTEN": server.address}
        assert health(**asked) == (0, "SERVING\n", "")
        assert health("--certificate", str(client[0]), "--private-key", str(client[1]), **asked) == (0, "SERVING\n", "")
        stranger = Authority("others").client("health").write(tmp_path, "stranger")
        variables = {"KEYSTOW_CLIENT_CERTIFICATE": str(stranger[0]), "KEYSTOW_CLIENT_KEY": str(stranger[1])}
        assert health(**asked, **variables) == (1, "no answer: UNAVAILABLE\n", "")
        config = tmp_path / "keystow.toml"
        config.write_text(
            "".join(f'{name.removeprefix("KEYSTOW_").lower()} = "{value}"\n' for name, value in asked.items())
        )
        assert health("--config", str(config)) == (0, "SERVING\n", "")
        # A certificate that has come before its key: the server serves, so it is healthy.
        (tmp_path / "server.crt").write_bytes(files.authority.server("keystow.example").certificate_pem)
        assert health("--certificate", str(client[0]), "--private-key", str(client[1]), **asked) == (0, "SERVING\n", "")
        (tmp_path / "server.key").unlink()
        code, output, errors = health(**asked)
        assert (code, output) == (2, "")
        assert "server.key cannot be read: No such file or directory" in errors


def test_over_tls_an_odd_certificate(tmp_path: Path) -> None:
    """What stands in the server's certificate is no reason to break down over it."""
    files = write_files(tmp_path)
    issued = files.authority.server("odd")
    issued.write(tmp_path, "server")
    (tmp_path / "server.crt").write_bytes(with_a_name_of_another_kind(issued.certificate, "odd"))
    with keystow_server(tmp_path / "data", settings=files.settings) as server:
        assert health(**files.settings, KEYSTOW_LISTEN=server.address) == (1, "no answer: UNAVAILABLE\n", "")


def test_over_tls_nobody_there(tmp_path: Path) -> None:
    """Where nobody listens, or nobody speaks TLS, there is no answer."""
    files = write_files(tmp_path)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        assert health(**files.settings, KEYSTOW_LISTEN=address) == (1, "no answer: ConnectionRefusedError\n", "")
    with keystow_server(tmp_path / "data") as server:
        assert health(**files.settings, KEYSTOW_LISTEN=server.address)[:2] == (1, "no answer: SSLError\n")


def test_nobody_there() -> None:
    """Where nobody listens there is no answer: exit code 1."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        assert health("--address", f"127.0.0.1:{port}") == (1, "no answer: UNAVAILABLE\n", "")


def test_nobody_answers() -> None:
    """One that takes the connection and says nothing is given up on: exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        code, output, errors = health("--address", f"127.0.0.1:{port}", "--timeout", "0.5")
    assert (code, errors) == (1, "")
    assert output in {"no answer: DEADLINE_EXCEEDED\n", "no answer: UNAVAILABLE\n"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--address", "50051"], "50051 is not HOST:PORT"),
        (["--address", "localhost:grpc"], "localhost:grpc is not HOST:PORT"),
        (["--timeout", "0"], "'--timeout'"),
        (["--certificate", "c"], "--certificate and --private-key go together"),
        (["--config", "/missing.toml"], "/missing.toml: cannot be read"),
    ],
)
def test_bad_input(arguments: list[str], complaint: str) -> None:
    """What cannot be asked is refused with exit code 2, in words."""
    code, output, errors = health(*arguments)
    assert (code, output) == (2, "")
    assert complaint in errors
    assert "Traceback" not in errors


def _put(key: str) -> Iterator[PutRequest]:
    """The messages of a Put of more bytes than any transport takes ahead of its reader."""
    yield PutRequest(header=PutHeader(tenant_id="acme", key=key, upload_id=str(uuid.uuid4()), size=_SIZE))
    for offset in range(0, _SIZE, _MIB):
        yield PutRequest(chunk=Chunk(offset=offset, data=bytes(_MIB)))
    yield PutRequest(finish=PutFinish(size=_SIZE))
