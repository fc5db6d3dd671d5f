"""Changes to the local keyring: what is done, what is refused, and who is the provider."""

from pathlib import Path

import pytest

from adapters.keyring import DAY, REGION, Deployment
from keystow_service.adapters import posix_files
from keystow_service.adapters.root_key import KeyringError
from keystow_service.errors import KmsKeyArnInvalidError
from keystow_service.model import KeyState


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


async def test_destroyed_by_anyones_write(deployment: Deployment) -> None:
    """The next change of any key, even one that is refused, destroys what is past its date."""
    arn, another = deployment.create(), deployment.create()
    deployment.admin.schedule_deletion(arn, days=30)
    deployment.clock.advance(30 * DAY - 1)
    deployment.admin.disable(another)
    assert arn.text in deployment.keyring.read_text()
    deployment.clock.advance(1)
    assert [key.arn for key in deployment.admin.list()] == [another]
    with pytest.raises(KeyringError):
        deployment.admin.rotate(another)
    assert arn.text not in deployment.keyring.read_text()


def test_stopped_writer(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds the lock and does not move is reported, not waited for without end."""
    arn = deployment.create()
    monkeypatch.setattr(posix_files, "_TIMEOUT", 0.05)
    with (
        posix_files.file_lock(deployment.keyring.with_name("keyring.json.lock")),
        pytest.raises(KeyringError, match="lsof"),
    ):
        deployment.admin.disable(arn)


@pytest.mark.parametrize("days", [-1, 0, 6, 31])
def test_waiting_time(deployment: Deployment, days: int) -> None:
    """Deletion waits 7 to 30 days, as at AWS."""
    arn = deployment.create()
    with pytest.raises(ValueError, match="7 to 30"):
        deployment.admin.schedule_deletion(arn, days=days)
    assert deployment.admin.list()[0].state is KeyState.ENABLED


def test_refused_changes(deployment: Deployment) -> None:
    """What AWS refuses in a key's state is refused here, in words."""
    arn = deployment.create()
    with pytest.raises(KeyringError, match="not scheduled"):
        deployment.admin.cancel_deletion(arn)
    deployment.admin.disable(arn)
    with pytest.raises(KeyringError, match="DISABLED"):
        deployment.admin.rotate(arn)
    deployment.admin.schedule_deletion(arn, days=7)
    for change in (deployment.admin.enable, deployment.admin.disable, deployment.admin.rotate):
        with pytest.raises(KeyringError, match="scheduled for deletion on 2026-01-08"):
            change(arn)
    with pytest.raises(KeyringError, match="scheduled for deletion on 2026-01-08"):
        deployment.admin.schedule_deletion(arn, days=8)
    assert deployment.admin.cancel_deletion(arn).state is KeyState.DISABLED


@pytest.mark.parametrize("tenants", [[], [""], ["acme", "Other"], ["a"], ["x" * 64], ["acme*"], ["-ab"]])
def test_tenants_of_a_key(deployment: Deployment, tenants: list[str]) -> None:
    """A key is not created for what cannot be a tenant, and nothing is made on disk."""
    with pytest.raises(ValueError, match="tenant"):
        deployment.admin.create(REGION, tenants=tenants)
    assert not deployment.keyring.parent.exists()


def test_region_of_a_key(deployment: Deployment) -> None:
    """A key is not created in what cannot be a region."""
    with pytest.raises(KmsKeyArnInvalidError):
        deployment.admin.create("moon", tenants=["acme"])


def test_provider_key(deployment: Deployment) -> None:
    """Each region has one provider key, the same at every start, also while it is disabled or awaits deletion."""
    first = deployment.admin.ensure_provider_key(REGION)
    other_region = deployment.admin.ensure_provider_key("eu-west-2")
    assert (first.region, other_region.region) == (REGION, "eu-west-2")
    deployment.create("*")
    assert deployment.admin.ensure_provider_key(REGION) == first
    deployment.admin.disable(first)
    assert deployment.admin.ensure_provider_key(REGION) == first
    deployment.admin.schedule_deletion(first, days=7)
    assert deployment.admin.ensure_provider_key(REGION) == first


def test_destroyed_provider_key(deployment: Deployment) -> None:
    """After a provider key was destroyed, the next start makes another one for tenants yet to come."""
    first = deployment.admin.ensure_provider_key(REGION)
    deployment.admin.schedule_deletion(first, days=7)
    deployment.clock.advance(7 * DAY)
    assert deployment.admin.ensure_provider_key(REGION) != first
