"""What every TenantRegistry must do. A registry joins with the fixture ``registry``."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest

from keystow_service.errors import KmsKeyInUseError, TenantExistsError, TenantNotFoundError
from keystow_service.model import KeyArn, KeyManagement, Tenant, TenantId
from keystow_service.ports import TenantRegistry


def new_arn() -> KeyArn:
    return KeyArn.parse(f"arn:aws:kms:eu-west-2:111122223333:key/{uuid4()}")


def new_tenant(tenant_id: str, management: KeyManagement = KeyManagement.SELF, arn: KeyArn | None = None) -> Tenant:
    return Tenant(
        tenant_id=TenantId(tenant_id),
        display_name=f"{tenant_id} & Söhne",
        key_management=management,
        key_arn=arn or new_arn(),
        data_center="uk",
        create_time=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )


class TakingTurns:
    """Two openings of one database, asked in turn: what one writes the other must read."""

    def __init__(self, *registries: TenantRegistry) -> None:
        self._registries = list(registries)

    def _next(self) -> TenantRegistry:
        self._registries.append(self._registries.pop(0))
        return self._registries[-1]

    async def get(self, tenant_id: TenantId) -> Tenant:
        return await self._next().get(tenant_id)

    async def add(self, tenant: Tenant) -> Tenant:
        return await self._next().add(tenant)

    async def key_in_use(self, arn: KeyArn, *, besides: TenantId) -> bool:
        return await self._next().key_in_use(arn, besides=besides)

    async def list(self, *, start_after: str = "", limit: int) -> Sequence[Tenant]:
        return await self._next().list(start_after=start_after, limit=limit)


class RegistryContract:
    """Subclass it, and provide the fixture ``registry``, empty."""

    async def test_reads_back(self, registry: TenantRegistry) -> None:
        """A tenant reads back as it was written, to the microsecond."""
        for tenant in (new_tenant("acme"), new_tenant("provided", KeyManagement.PROVIDER)):
            assert await registry.add(tenant) == tenant
            assert await registry.get(tenant.tenant_id) == tenant

    async def test_times_are_utc(self, registry: TenantRegistry) -> None:
        """A time of another zone is the same moment afterwards, in UTC."""
        local = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=5)))
        await registry.add(replace(new_tenant("acme"), create_time=local))
        read = (await registry.get(TenantId("acme"))).create_time
        assert read == local
        assert read.utcoffset() == timedelta(0)

    async def test_unknown(self, registry: TenantRegistry) -> None:
        """A tenant that nobody registered is not found; one with a similar name does not stand for it."""
        await registry.add(new_tenant("acme"))
        for name in ("acm", "acmes", "ACME", "acme ", "%"):
            with pytest.raises(TenantNotFoundError) as caught:
                await registry.get(TenantId(name))
            assert caught.value.details == {"tenant_id": name}

    async def test_same_choice_again(self, registry: TenantRegistry) -> None:
        """Writing the same choice again answers what stands, with the time of the first."""
        tenant = new_tenant("acme")
        await registry.add(tenant)
        later = replace(tenant, create_time=tenant.create_time + timedelta(days=1))
        assert await registry.add(later) == tenant
        assert await registry.get(tenant.tenant_id) == tenant

    async def test_other_choice(self, registry: TenantRegistry) -> None:
        """Nothing of a choice can be changed by writing again."""
        tenant = new_tenant("acme")
        await registry.add(tenant)
        for other in (
            replace(tenant, key_arn=new_arn()),
            replace(tenant, key_management=KeyManagement.PROVIDER),
            replace(tenant, data_center="us"),
            replace(tenant, display_name="Acme"),
        ):
            with pytest.raises(TenantExistsError) as caught:
                await registry.add(other)
            assert caught.value.details == {"tenant_id": "acme"}
        assert await registry.get(tenant.tenant_id) == tenant

    async def test_key_of_another_tenant(self, registry: TenantRegistry) -> None:
        """A self-managed key serves one tenant; who that is, is not told."""
        await registry.add(new_tenant("acme", arn=(arn := new_arn())))
        with pytest.raises(KmsKeyInUseError) as caught:
            await registry.add(new_tenant("other", arn=arn))
        assert "acme" not in caught.value.message
        assert caught.value.details == {"tenant_id": "other", "key_arn": arn.text}
        with pytest.raises(TenantNotFoundError):
            await registry.get(TenantId("other"))

    async def test_replica_of_another_tenants_key(self, registry: TenantRegistry) -> None:
        """The replicas of a multi-Region key are one key; the same id in another account is another."""
        london, dublin, elsewhere = (
            KeyArn.parse(f"arn:aws:kms:{region}:{account}:key/mrk-{'5' * 32}")
            for region, account in (
                ("eu-west-2", "111122223333"),
                ("eu-west-1", "111122223333"),
                ("eu-west-1", "444455556666"),
            )
        )
        await registry.add(new_tenant("acme", arn=london))
        with pytest.raises(KmsKeyInUseError):
            await registry.add(new_tenant("other", arn=dublin))
        await registry.add(new_tenant("other", arn=elsewhere))

    async def test_provider_key_serves_many(self, registry: TenantRegistry) -> None:
        """A provider's key serves many tenants."""
        arn = new_arn()
        for name in ("acme", "beta", "gamma"):
            await registry.add(new_tenant(name, KeyManagement.PROVIDER, arn))
        assert len(await registry.list(limit=10)) == 3

    @pytest.mark.parametrize("management", KeyManagement)
    async def test_key_in_use(self, registry: TenantRegistry, management: KeyManagement) -> None:
        """A key that a tenant is bound to is in use for all others, replicas of it too, whoever manages it."""
        key = f"key/mrk-{'5' * 32}"
        arn = KeyArn.parse(f"arn:aws:kms:eu-west-2:111122223333:{key}")
        await registry.add(new_tenant("acme", management, arn))
        acme, other = TenantId("acme"), TenantId("other")
        assert await registry.key_in_use(arn, besides=other)
        assert await registry.key_in_use(KeyArn.parse(f"arn:aws:kms:eu-west-1:111122223333:{key}"), besides=other)
        assert not await registry.key_in_use(arn, besides=acme)
        assert not await registry.key_in_use(new_arn(), besides=other)
        assert not await registry.key_in_use(KeyArn.parse(f"arn:aws:kms:eu-west-2:444455556666:{key}"), besides=other)

    async def test_list(self, registry: TenantRegistry) -> None:
        """Tenants list by the bytes of their ids, in pages, each once; the last page is short."""
        names = ["a-z", "a0z", "aaz", "abc", "abc-d", "abc0", "abcd", "zzz"]
        for name in reversed(names):
            await registry.add(new_tenant(name))
        assert sorted(names) == names
        assert [tenant.tenant_id for tenant in await registry.list(limit=100)] == names
        listed: list[str] = []
        while page := await registry.list(start_after=listed[-1] if listed else "", limit=3):
            listed += [tenant.tenant_id for tenant in page]
        assert listed == names
        assert len(await registry.list(start_after="abc0", limit=3)) == 2

    async def test_empty(self, registry: TenantRegistry) -> None:
        """An empty registry lists nothing."""
        assert not await registry.list(limit=10)

    async def test_race_for_a_tenant(self, registry: TenantRegistry) -> None:
        """Of many who register a tenant at once with keys of their own, one wins, and all others are told."""
        results = await asyncio.gather(*(registry.add(new_tenant("acme")) for _ in range(10)), return_exceptions=True)
        won = [result for result in results if isinstance(result, Tenant)]
        assert len(won) == 1
        assert sum(isinstance(result, TenantExistsError) for result in results) == 9
        assert await registry.get(TenantId("acme")) == won[0]

    @pytest.mark.parametrize("regions", [["eu-west-2"], ["eu-west-1", "eu-west-2"]], ids=["one region", "replicas"])
    async def test_race_for_a_key(self, registry: TenantRegistry, regions: Sequence[str]) -> None:
        """Of many tenants that register one key at once, or replicas of it, one gets it."""
        arns = [KeyArn.parse(f"arn:aws:kms:{region}:111122223333:key/mrk-{'5' * 32}") for region in regions]
        tenants = [new_tenant(f"tenant-{number}", arn=arns[number % len(arns)]) for number in range(10)]
        results = await asyncio.gather(*map(registry.add, tenants), return_exceptions=True)
        assert sum(isinstance(result, Tenant) for result in results) == 1
        assert sum(isinstance(result, KmsKeyInUseError) for result in results) == 9
        assert len(await registry.list(limit=20)) == 1

    async def test_race_of_the_same_choice(self, registry: TenantRegistry) -> None:
        """Many who register the same choice at once all get it."""
        tenant = new_tenant("acme")
        assert await asyncio.gather(*(registry.add(tenant) for _ in range(10))) == [tenant] * 10
