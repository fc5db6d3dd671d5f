"""CheckKey through a real channel: a failing key is an answer, and nothing is changed."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from keystow.v1.tenants_pb2 import (
    KEY_STATE_DISABLED,
    KEY_STATE_ENABLED,
    KEY_STATE_NOT_FOUND,
    KEY_STATE_UNSPECIFIED,
    CheckKeyRequest,
    CheckKeyResponse,
    KeyCheck,
    ListTenantsRequest,
)
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from servers.in_process import Server, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSED, FAILED, WARNING, SKIPPED = (
    KeyCheck.OUTCOME_PASSED,
    KeyCheck.OUTCOME_FAILED,
    KeyCheck.OUTCOME_WARNING,
    KeyCheck.OUTCOME_SKIPPED,
)


@pytest.fixture(scope="module")
def keyring(server: Server) -> KeyringAdmin:
    """The customers' side of the server's keyring."""
    folder = server.data_dir / "keyring"
    return KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lenient(server: Server) -> AsyncIterator[Server]:
    """Another server over the same data, whose operator allows broad policies."""
    async with serving(server.data_dir, allow_broad_key_policies=True) as running:
        yield running


async def check(server: Server, arn: str) -> CheckKeyResponse:
    """A key, for acme in the US."""
    answer = await server.tenants.CheckKey(CheckKeyRequest(tenant_id="acme", kms_key_arn=arn, data_center="us"))
    assert all(each.detail for each in answer.checks)
    assert not (await server.tenants.ListTenants(ListTenantsRequest())).tenants
    return answer


def outcomes(answer: CheckKeyResponse) -> list[int]:
    """In the order of the answer."""
    return [each.outcome for each in answer.checks]


async def test_a_proper_key(server: Server, keyring: KeyringAdmin) -> None:
    """It is usable, and enabled."""
    answer = await check(server, keyring.create("us-east-1", tenants=["acme"]).arn.text)
    assert (answer.usable, answer.state, outcomes(answer)) == (True, KEY_STATE_ENABLED, [PASSED] * 7)


async def test_keys_that_fail(server: Server, keyring: KeyringAdmin) -> None:
    """Each is an answer: disabled, unknown, in another region, and what is no ARN at all."""
    disabled = keyring.create("us-east-1", tenants=["acme"]).arn
    keyring.disable(disabled)
    elsewhere = keyring.create("eu-west-1", tenants=["acme"]).arn
    unknown = f"{disabled.text[:-12]}123456789012"
    for arn, state, passed in (
        (disabled.text, KEY_STATE_DISABLED, 3),
        (unknown, KEY_STATE_NOT_FOUND, 3),
        (elsewhere.text, KEY_STATE_UNSPECIFIED, 1),
        ("alias/backup", KEY_STATE_UNSPECIFIED, 0),
    ):
        answer = await check(server, arn)
        assert (answer.usable, answer.state) == (False, state)
        assert outcomes(answer) == [*[PASSED] * passed, FAILED, *[SKIPPED] * (6 - passed)]


async def test_the_operator_may_allow_broad_policies(server: Server, lenient: Server, keyring: KeyringAdmin) -> None:
    """A key that serves any tenant is then usable, with a warning."""
    arn = keyring.create("us-east-1", tenants=["*"]).arn.text
    strict, allowed = await check(server, arn), await check(lenient, arn)
    assert (strict.usable, outcomes(strict)) == (False, [*[PASSED] * 6, FAILED])
    assert (allowed.usable, outcomes(allowed)) == (True, [*[PASSED] * 6, WARNING])
