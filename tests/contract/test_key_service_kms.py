"""AWS KMS under the KeyService contract: over our faithful server, and over moto's."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from aiobotocore.session import AioSession

from contract.key_service import REGION, KeyServiceContract, Lack, Subject, unknown_arn
from keystow_service.adapters.kms import open_kms
from keystow_service.model import KeyArn
from servers.fake_kms import ACCOUNT, FakeKms, fake_kms
from servers.moto import MotoServer

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient

MOTO_LACKS = frozenset({Lack.KEY_STATES, Lack.POLICY, Lack.CONTEXT_CUTS, Lack.INCORRECT_KEY})


@pytest.fixture(scope="module")
def session() -> AioSession:
    """Shared, because reading botocore's service model takes longer than a test."""
    session = AioSession()
    session.set_credentials("testing", "testing")
    return session


class _FakeDesk:
    def __init__(self, kms: FakeKms) -> None:
        self._kms = kms

    async def create(self, *tenants: str) -> KeyArn:
        return KeyArn.parse(self._kms.create_key(*tenants, region=REGION).arn)

    async def disable(self, arn: KeyArn) -> None:
        self._kms[arn.text].state = "Disabled"

    async def enable(self, arn: KeyArn) -> None:
        self._kms[arn.text].state = "Enabled"

    async def schedule_deletion(self, arn: KeyArn) -> datetime:
        key = self._kms[arn.text]
        key.state, key.deletion_date = "PendingDeletion", datetime(2026, 2, 1, 12, 30, tzinfo=UTC)
        return key.deletion_date

    async def cancel_deletion(self, arn: KeyArn) -> None:
        key = self._kms[arn.text]
        key.state, key.deletion_date = "Disabled", None

    async def rotate(self, arn: KeyArn) -> None:
        self._kms[arn.text].material.append(bytes(range(32)))


class TestFakeKms(KeyServiceContract):
    """Our server does all that AWS does here."""

    @pytest.fixture
    async def subject(self, session: AioSession) -> AsyncIterator[Subject]:
        async with fake_kms() as kms, open_kms(REGION, session=session, endpoint=kms.endpoint) as service:
            yield Subject(service, _FakeDesk(kms), unknown_arn(ACCOUNT))


class TestFakeKmsPendingAsDisabled(KeyServiceContract):
    """AWS may answer for a key that awaits deletion with DisabledException, too."""

    @pytest.fixture
    async def subject(self, session: AioSession) -> AsyncIterator[Subject]:
        class Desk(_FakeDesk):
            async def create(self, *tenants: str) -> KeyArn:
                arn = await super().create(*tenants)
                self._kms[arn.text].state_code = "DisabledException"
                return arn

        async with fake_kms() as kms, open_kms(REGION, session=session, endpoint=kms.endpoint) as service:
            yield Subject(service, Desk(kms), unknown_arn(ACCOUNT))


class _MotoDesk:
    """An owner's script. By key id: moto does not take ARNs here."""

    def __init__(self, client: "KMSClient") -> None:
        self._client = client

    async def create(self, *tenants: str) -> KeyArn:
        assert tenants
        # moto describes only a usage that was asked for; AWS's default is the same one.
        return KeyArn.parse((await self._client.create_key(KeyUsage="ENCRYPT_DECRYPT"))["KeyMetadata"]["Arn"])

    async def disable(self, arn: KeyArn) -> None:
        await self._client.disable_key(KeyId=_id(arn))

    async def enable(self, arn: KeyArn) -> None:
        await self._client.enable_key(KeyId=_id(arn))

    async def schedule_deletion(self, arn: KeyArn) -> datetime:
        answer = await self._client.schedule_key_deletion(KeyId=_id(arn), PendingWindowInDays=7)
        return answer["DeletionDate"].astimezone(UTC)

    async def cancel_deletion(self, arn: KeyArn) -> None:
        await self._client.cancel_key_deletion(KeyId=_id(arn))

    async def rotate(self, arn: KeyArn) -> None:
        await self._client.rotate_key_on_demand(KeyId=_id(arn))


class TestMoto(KeyServiceContract):
    """moto is an independent implementation where it does as AWS does."""

    @pytest.fixture
    async def subject(self, session: AioSession, moto: MotoServer) -> AsyncIterator[Subject]:
        async with (
            open_kms(REGION, session=session, endpoint=moto.endpoint) as service,
            session.create_client("kms", region_name=REGION, endpoint_url=moto.endpoint) as client,
        ):
            yield Subject(service, _MotoDesk(client), unknown_arn("123456789012"), MOTO_LACKS)


def _id(arn: KeyArn) -> str:
    return arn.text.rpartition("/")[2]
