"""What the service says, word for word, newer words included."""

from datetime import UTC, datetime, timedelta

from client.scripted import ScriptedServer
from keystow.v1 import tenants_pb2
from keystow_client import AsyncClient, CheckOutcome, KeyManagement, KeyState
from keystow_client.models import KeyHealth, Tenant


async def test_a_registration(client: AsyncClient, server: ScriptedServer) -> None:
    """Every argument is sent, and tenant and checks come back."""
    registration = await client.register_tenant(
        "acme",
        data_center="us",
        key_management=KeyManagement.SELF,
        confirm_permanent=True,
        kms_key_arn="arn:aws:kms:us-east-1:111122223333:key/2",
        display_name="Acme",
        wait=1.5,
    )
    (request,) = server.tenants.requests
    assert request.wait.ToTimedelta() == timedelta(seconds=1.5)
    assert request.confirm_permanent
    assert registration.tenant == await client.get_tenant("acme")
    assert registration.tenant.kms_key_arn == "arn:aws:kms:us-east-1:111122223333:key/2"
    assert registration.tenant.create_time == datetime.fromtimestamp(1_700_000_000, UTC)
    assert [(check.name, check.outcome) for check in registration.checks] == [("key.region", CheckOutcome.PASSED)]


def test_key_health_is_read_whole() -> None:
    """States, times and the revocation bound."""
    health = tenants_pb2.KeyHealth(state=tenants_pb2.KEY_STATE_PENDING_DELETION, reason="KMS_KEY_PENDING_DELETION")
    health.deletion_time.FromSeconds(1_800_000_000)
    health.revocation_bound.FromSeconds(60)
    read = KeyHealth.from_proto(health)
    assert read.state is KeyState.PENDING_DELETION
    assert read.deletion_time == datetime.fromtimestamp(1_800_000_000, UTC)
    assert read.revocation_bound == timedelta(seconds=60)
    assert read.check_time is None


def test_words_of_the_future_are_unknown() -> None:
    """An enum value that this client has never heard of is no failure."""
    tenant = tenants_pb2.Tenant(tenant_id="acme")
    tenant.key_management = 99  # type: ignore[assignment]  # a newer server's
    assert Tenant.from_proto(tenant).key_management is KeyManagement.UNKNOWN
    assert Tenant.from_proto(tenant).key_health is None
