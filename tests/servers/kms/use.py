"""What a key is for: data keys. Existence and permission were checked before."""

import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from servers.kms.keys import Key
from servers.kms.material import key_id_of
from servers.kms.refusal import Refusal, invalid
from servers.kms.states import check


def generate_data_key(key: Key, body: Mapping[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html."""
    _usable(key, "GenerateDataKey")
    if body.get("KeySpec") != "AES_256":
        raise invalid("Please specify either number of bytes or key spec.")
    plaintext = os.urandom(32)
    blob = key.material.encrypt(plaintext, _context(body))
    return {"KeyId": key.arn, "Plaintext": _encoded(plaintext), "CiphertextBlob": _encoded(blob)}


def decrypt(key: Key, body: Mapping[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html."""
    blob = b64decode(body["CiphertextBlob"])
    if key_id_of(blob) != key.key_id:
        text = "The key ID in the request does not identify a CMK that can perform this operation."
        raise Refusal("IncorrectKeyException", text)
    _usable(key, "Decrypt")
    plaintext = key.material.decrypt(blob, _context(body))
    return {"KeyId": key.arn, "Plaintext": _encoded(plaintext), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}


def _usable(key: Key, operation: str) -> None:
    kind = key.kind
    if kind.usage != "ENCRYPT_DECRYPT":
        raise Refusal("InvalidKeyUsageException", f"{key.arn} key usage is {kind.usage} which is not valid.")
    if kind.spec != "SYMMETRIC_DEFAULT":
        text = f"{key.arn} key spec is {kind.spec} which is not valid for {operation}."
        raise Refusal("InvalidKeyUsageException", text)
    check(operation, key.arn, key.state_of(key.seen), pending_code=key.pending_code)


def _context(body: Mapping[str, Any]) -> Mapping[str, str]:
    context: Mapping[str, str] = body.get("EncryptionContext", {})
    return context


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()
