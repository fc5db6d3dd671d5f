"""What KMS takes no request for, refused before it is one: behind this, every request is sent, and audited."""

from keystow_service.adapters import kms_errors
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import EncryptionContext, KeyService

# Of Decrypt's CiphertextBlob: https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html
_MAX_CIPHERTEXT_SIZE = 6144


class LimitedKms:
    """A KeyService in front of another."""

    def __init__(self, kms: KeyService) -> None:
        self._kms = kms

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._kms.generate_data_key(arn, context)

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        if not 1 <= len(wrapped) <= _MAX_CIPHERTEXT_SIZE:
            raise kms_errors.WRAPPED_KEY_INVALID.error(arn)
        return await self._kms.unwrap(arn, wrapped, context)

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService."""
        return await self._kms.describe(arn)
