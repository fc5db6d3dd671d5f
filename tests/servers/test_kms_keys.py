"""The faithful KMS keeps AWS's rules about keys: rotation, replicas, imported material, usage, names, regions."""

from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clock import FakeClock
from servers.kms.keys import Kind
from servers.kms.principals import CUSTOMER, PROVIDER, administrator
from servers.kms.server import faithful_kms
from servers.kms.sessions import client_of
from servers.kms.states import State

CONTEXT = {"keystow:tenant": "acme"}
HERE, THERE = "us-east-1", "eu-west-1"
MULTI_REGION = Kind(multi_region=True)


async def test_rotation_keeps_old_ciphertexts_readable() -> None:
    """Over the wire, by its owner; while it is disabled it is refused."""
    async with faithful_kms() as kms, client_of(kms, CUSTOMER) as customer, client_of(kms, PROVIDER) as provider:
        key = kms.create_key("acme")
        made = []
        for _ in range(3):
            made.append(await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT))
            await customer.rotate_key_on_demand(KeyId=key.arn)
        assert key.material.rotations == 3
        for each in made:
            opened = await provider.decrypt(
                KeyId=key.arn, CiphertextBlob=each["CiphertextBlob"], EncryptionContext=CONTEXT
            )
            assert opened["Plaintext"] == each["Plaintext"]
        key.disable()
        with pytest.raises(ClientError, match="DisabledException"):
            await customer.rotate_key_on_demand(KeyId=key.arn)


async def test_replicas_decrypt_for_each_other_and_are_disabled_apart() -> None:
    """A multi-Region key is one key in two regions, with two states and two policies."""
    async with faithful_kms(HERE, THERE) as kms, client_of(kms, CUSTOMER, HERE) as customer:
        primary = kms.create_key("acme", region=HERE, kind=MULTI_REGION)
        answer = await customer.replicate_key(
            KeyId=primary.arn, ReplicaRegion=THERE, Policy=primary.standing.policy.text
        )
        replica = kms[answer["ReplicaKeyMetadata"]["Arn"]]
        assert replica.arn == primary.arn.replace(HERE, THERE)
        assert replica.key_id.startswith("mrk-")
        async with client_of(kms, PROVIDER, HERE) as here, client_of(kms, PROVIDER, THERE) as there:
            made = await here.generate_data_key(KeyId=primary.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
            fields: dict[str, Any] = {"CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": CONTEXT}
            primary.disable()
            assert (await there.decrypt(KeyId=replica.arn, **fields))["Plaintext"] == made["Plaintext"]
            with pytest.raises(ClientError, match=r"DisabledException.*us-east-1"):
                await here.decrypt(KeyId=primary.arn, **fields)
            described = (await there.describe_key(KeyId=replica.arn))["KeyMetadata"]
        assert described["MultiRegionConfiguration"] == {
            "MultiRegionKeyType": "REPLICA",
            "PrimaryKey": {"Arn": primary.arn, "Region": HERE},
            "ReplicaKeys": [{"Arn": replica.arn, "Region": THERE}],
        }


async def test_a_primary_key_outlives_its_replicas() -> None:
    """Its waiting time begins when the last of them is gone."""
    clock = FakeClock()
    async with faithful_kms(HERE, THERE, clock=clock) as kms:
        primary = kms.create_key("acme", region=HERE, kind=MULTI_REGION)
        replica = kms.replicate(primary, THERE)
        assert primary.schedule_deletion(days=7) is None
        clock.advance(30 * 86_400)
        assert (replica.state, primary.state) == (State.ENABLED, State.PENDING_REPLICA_DELETION)
        replica.schedule_deletion(days=7)
        clock.advance(7 * 86_400)
        assert (replica.state, primary.state) == (State.DELETED, State.PENDING_DELETION)
        assert primary.deletion_date == clock.now() + timedelta(days=7)
        clock.advance(7 * 86_400)
        assert primary.state is State.DELETED


async def test_imported_material_expires_and_comes_back() -> None:
    """Without it the key is PendingImport; imported again, it opens what it sealed before."""
    clock = FakeClock()
    async with (
        faithful_kms(clock=clock) as kms,
        client_of(kms, PROVIDER) as provider,
        client_of(kms, CUSTOMER) as customer,
    ):
        key = kms.create_key("acme", kind=Kind(origin="EXTERNAL"))
        assert key.state is State.PENDING_IMPORT
        key.import_material(clock.now() + timedelta(days=1))
        described = (await provider.describe_key(KeyId=key.arn))["KeyMetadata"]
        assert (described["Origin"], described["ExpirationModel"]) == ("EXTERNAL", "KEY_MATERIAL_EXPIRES")
        assert described["ValidTo"] == clock.now() + timedelta(days=1)
        made = await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
        clock.advance(86_400)
        assert key.state is State.PENDING_IMPORT
        key.import_material()
        await customer.delete_imported_key_material(KeyId=key.arn)
        assert key.state is State.PENDING_IMPORT
        key.import_material()
        opened = await provider.decrypt(KeyId=key.arn, CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
        assert opened["Plaintext"] == made["Plaintext"]


@pytest.mark.parametrize(
    ("spec", "usage"),
    [
        ("RSA_2048", "SIGN_VERIFY"),
        ("RSA_2048", "ENCRYPT_DECRYPT"),
        ("ECC_NIST_P256", "SIGN_VERIFY"),
        ("HMAC_256", "GENERATE_VERIFY_MAC"),
    ],
)
async def test_other_kinds_of_keys(spec: str, usage: str) -> None:
    """They are described as what they are, and make no data keys."""
    async with faithful_kms() as kms, client_of(kms, PROVIDER) as provider:
        key = kms.create_key("acme", kind=Kind(spec=spec, usage=usage))
        described = (await provider.describe_key(KeyId=key.arn))["KeyMetadata"]
        assert (described["KeySpec"], described["KeyUsage"]) == (spec, usage)
        with pytest.raises(ClientError, match="InvalidKeyUsageException"):
            await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)


async def test_a_ciphertext_is_bound_to_its_key_and_context() -> None:
    """Another key is IncorrectKeyException; another context and other bytes InvalidCiphertextException, wordless."""
    async with faithful_kms() as kms, client_of(kms, PROVIDER) as provider:
        key, another = kms.create_key("acme", "other"), kms.create_key("acme")
        made = await provider.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
        blob = made["CiphertextBlob"]
        with pytest.raises(ClientError, match="IncorrectKeyException"):
            await provider.decrypt(KeyId=another.arn, CiphertextBlob=blob, EncryptionContext=CONTEXT)
        for damaged, context in (
            (blob, {"keystow:tenant": "other"}),
            (blob, {**CONTEXT, "more": "pairs"}),
            (blob[:-1] + bytes([blob[-1] ^ 1]), CONTEXT),
            (blob[:30], CONTEXT),
            (b"\xff" * 200, CONTEXT),
        ):
            with pytest.raises(ClientError) as caught:
                await provider.decrypt(KeyId=key.arn, CiphertextBlob=damaged, EncryptionContext=context)
            assert caught.value.response["Error"] == {"Code": "InvalidCiphertextException", "Message": ""}


async def test_names_of_a_key() -> None:
    """Its owner may use its id and aliases; an alias can be pointed elsewhere; other regions and accounts differ."""
    async with faithful_kms(HERE, THERE) as kms, client_of(kms, CUSTOMER, HERE) as customer:
        one, other = kms.create_key(region=HERE), kms.create_key(region=HERE)
        await customer.create_alias(AliasName="alias/backup", TargetKeyId=one.key_id)
        alias = f"arn:aws:kms:{HERE}:111122223333:alias/backup"
        for name in (one.key_id, one.arn, "alias/backup", alias):
            assert (await customer.describe_key(KeyId=name))["KeyMetadata"]["Arn"] == one.arn
        await customer.update_alias(AliasName="alias/backup", TargetKeyId=other.key_id)
        assert (await customer.describe_key(KeyId=alias))["KeyMetadata"]["Arn"] == other.arn
        with pytest.raises(ClientError, match="AlreadyExistsException"):
            await customer.create_alias(AliasName="alias/backup", TargetKeyId=one.key_id)
        await customer.delete_alias(AliasName="alias/backup")
        with pytest.raises(ClientError, match=r"NotFoundException.*alias/backup is not found"):
            await customer.describe_key(KeyId=alias)
        async with client_of(kms, CUSTOMER, THERE) as elsewhere:
            with pytest.raises(ClientError, match=r"NotFoundException.*Invalid arn eu-west-1"):
                await elsewhere.describe_key(KeyId=one.arn)
            with pytest.raises(ClientError, match=r"NotFoundException.*does not exist"):
                await elsewhere.describe_key(KeyId=one.key_id)
        stranger = kms.principals.add(administrator("999900001111"))
        async with client_of(kms, stranger, HERE) as foreign:
            with pytest.raises(ClientError, match=r"NotFoundException.*999900001111.*does not exist"):
                await foreign.describe_key(KeyId=one.key_id)
