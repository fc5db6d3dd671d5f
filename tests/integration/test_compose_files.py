"""The compose files keep to what docs/operations.md says of them, and set nothing that the server does not take."""

import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compose_file import read, required
from keystow_service.settings import Settings, load

_DEPLOY = Path(__file__).parents[2] / "deploy"
_EMBEDDED, _WHOLE, _TLS = (_DEPLOY / name for name in ("compose.embedded.yaml", "compose.yaml", "compose.tls.yaml"))
_COMBINATIONS = {
    "embedded": [_EMBEDDED],
    "embedded, TLS": [_EMBEDDED, _TLS],
    "whole": [_WHOLE],
    "whole, TLS": [_WHOLE, _TLS],
}


@pytest.fixture(params=_COMBINATIONS.values(), ids=list(_COMBINATIONS))
def deployment(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each deployment that the files come to; every variable that must be given is its own name in small letters."""
    names = set[str]().union(*(required(file) for file in request.param))
    return read(request.param, {name: name.lower() for name in names})


def _services(deployment: dict[str, Any]) -> Mapping[str, Any]:
    services: Mapping[str, Any] = deployment["services"]
    return services


def _settings(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of the server in its image, whose own variables are below those of the file."""
    dockerfile = (_DEPLOY.parent / "Dockerfile").read_text(encoding="utf-8")
    of_image = dict(re.findall(r"(KEYSTOW_\w+)=(\S+)", dockerfile))
    for name, value in (of_image | _services(deployment)["keystow"]["environment"]).items():
        monkeypatch.setenv(name, value)
    return load(None)


def test_the_server_takes_the_settings(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are settings, they agree with each other, and the volume is where the server keeps its data."""
    settings = _settings(deployment, monkeypatch)
    (volume, *_) = _services(deployment)["keystow"]["volumes"]
    assert volume.endswith(f":{settings.data_dir}")
    assert volume.partition(":")[0] in deployment["volumes"]


def test_only_client_certificates_open_the_port(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the server's port is published: without client certificates on this machine's loopback alone."""
    settings = _settings(deployment, monkeypatch)
    published = {name: each["ports"] for name, each in _services(deployment).items() if "ports" in each}
    assert published == {"keystow": ["50051:50051" if settings.tls_client_ca else "127.0.0.1:50051:50051"]}
    assert settings.listen_insecurely_beyond_loopback is (settings.tls_client_ca is None)


def test_the_others_are_reached_by_nobody_else(deployment: dict[str, Any]) -> None:
    """They are on no network that leads out."""
    for name, service in _services(deployment).items():
        if name != "keystow":
            assert service.get("network_mode") == "none" or all(
                deployment["networks"][each]["internal"] for each in service["networks"]
            )


def test_every_process_is_confined(deployment: dict[str, Any]) -> None:
    """A read-only root, no capabilities and no way to new ones, not root, from an image that is named exactly."""
    for service in _services(deployment).values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "build" in service or service["user"] not in ("root", "0")
        assert "build" in service or re.search(r":v?[0-9]+\.[0-9]+", service["image"])


def test_a_server_has_time_to_end(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a drain takes; the others longer than Docker's ten seconds."""
    settings = _settings(deployment, monkeypatch)
    for name, service in _services(deployment).items():
        if service["restart"] == "unless-stopped":
            grace = int(service["stop_grace_period"].removesuffix("s"))
            assert grace > (settings.drain_timeout if name == "keystow" else 10)


def test_who_waits_for_whom(deployment: dict[str, Any]) -> None:
    """What is waited for is there, and says when it is ready: by its health or by its end."""
    services = _services(deployment)
    for service in services.values():
        for name, dependency in service.get("depends_on", {}).items():
            healthy = "test" in services[name].get("healthcheck", {})
            assert dependency["condition"] == ("service_healthy" if healthy else "service_completed_successfully")
            assert healthy or services[name]["restart"] == "no"


def test_no_password_in_the_files(deployment: dict[str, Any]) -> None:
    """Whatever is secret comes from outside, and has no default."""
    for service in _services(deployment).values():
        for name, value in service["environment"].items():
            if "SECRET" in name or "PASSWORD" in name:
                assert value in ("s3_secret_access_key", "postgresql_password")
            if "@" in value:
                assert ":postgresql_password@" in value


def test_secrets(tmp_path: Path) -> None:
    """The script writes what the file needs and nothing else, for its owner alone, and never a second time."""
    script = shutil.copy(_DEPLOY / "secrets.sh", tmp_path)
    subprocess.run([script], check=True, capture_output=True)
    written = tmp_path / ".env"
    content = written.read_text(encoding="ascii")
    values = dict(line.split("=") for line in content.splitlines() if not line.startswith("#"))
    assert values.keys() == required(_WHOLE)
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in values.values())
    assert len(set(values.values())) == len(values)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    again = subprocess.run([script], check=True, capture_output=True, text=True)
    assert "stays as it is" in again.stdout
    assert written.read_text(encoding="ascii") == content


def test_what_is_missing_is_said() -> None:
    """Without passwords nothing is deployed, and whoever asks is told what to do; the embedded default needs none."""
    assert required(_EMBEDDED) == set()
    with pytest.raises(KeyError, match="POSTGRESQL_PASSWORD"):
        read([_WHOLE], {})
    said = re.findall(r":\?([^}]*)\}", _WHOLE.read_text(encoding="utf-8"))
    assert set(said) == {"run deploy/secrets.sh first"}
