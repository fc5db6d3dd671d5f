"""AWS KMS under the KeyService contract: over our faithful server, and over moto's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from aiobotocore.session import AioSession

from contract.key_service import REGION, KeyServiceContract, Lack, Subject, unknown_arn
from keystow_service.adapters.kms import open_kms
from keystow_service.model import KeyArn
from keystow_service.ports import KeyService
from servers.kms.principals import CUSTOMER_ACCOUNT
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import session_of
from servers.moto import MotoServer

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient

MOTO_LACKS = frozenset({Lack.KEY_STATES, Lack.POLICY, Lack.CONTEXT_CUTS, Lack.INCORRECT_KEY})


class _FaithfulDesk:
    def __init__(self, kms: FaithfulKms) -> None:
        self._kms = kms

    async def create(self, *tenants: str) -> KeyArn:
        return KeyArn.parse(self._kms.create_key(*tenants, region=REGION).arn)

    async def disable(self, arn: KeyArn) -> None:
        self._kms[arn.text].disable()

    async def enable(self, arn: KeyArn) -> None:
        self._kms[arn.text].enable()

    async def schedule_deletion(self, arn: KeyArn) -> datetime:
        date = self._kms[arn.text].schedule_deletion(days=7)
        assert date is not None
        return date

    async def cancel_deletion(self, arn: KeyArn) -> None:
        self._kms[arn.text].cancel_deletion()

    async def rotate(self, arn: KeyArn) -> None:
        self._kms[arn.text].rotate()


@asynccontextmanager
async def _service(kms: FaithfulKms) -> AsyncIterator[KeyService]:
    async with open_kms(REGION, session=session_of(), endpoint=kms.endpoints[REGION]) as service:
        yield service


class TestFaithfulKms(KeyServiceContract):
    """Our server does all that AWS does here."""

    @pytest.fixture
    async def subject(self) -> AsyncIterator[Subject]:
        async with faithful_kms(REGION) as kms, _service(kms) as service:
            yield Subject(service, _FaithfulDesk(kms), unknown_arn(CUSTOMER_ACCOUNT))


class TestFaithfulKmsPendingAsDisabled(KeyServiceContract):
    """AWS may answer for a key that awaits deletion with DisabledException, too."""

    @pytest.fixture
    async def subject(self) -> AsyncIterator[Subject]:
        class Desk(_FaithfulDesk):
            async def create(self, *tenants: str) -> KeyArn:
                arn = await super().create(*tenants)
                self._kms[arn.text].pending_code = "DisabledException"
                return arn

        async with faithful_kms(REGION) as kms, _service(kms) as service:
            yield Subject(service, Desk(kms), unknown_arn(CUSTOMER_ACCOUNT))


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


@pytest.fixture(scope="module")
def session(moto: MotoServer) -> AioSession:
    """Shared, because reading botocore's service model takes longer than a test."""
    session = AioSession()
    session.set_credentials(moto.access_key_id, moto.secret_access_key)
    return session


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
