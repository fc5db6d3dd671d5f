"""A second writer of stored objects, written from docs/format.md alone.

Shares no code with the service: own byte packing, own HKDF on the standard library's HMAC, protobuf by hand. Slow and
straight, so that it can be read beside the format. Everything random comes from the vector's seed, in the order in
which it stands in the object.

``python tests/vectors/independent_writer.py`` prints objects.json. What has been frozen there never changes: stored
objects of that version must be readable for good.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import google_crc32c
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Vector: TypeAlias = Mapping[str, str | int | bool | Mapping[str, str]]

SEGMENT = 1 << 20


def plaintext_of(vector: Vector) -> bytes:
    """SHAKE-256 of the word "plaintext", as many bytes as the object has."""
    return hashlib.shake_256(b"plaintext").digest(int(str(vector["size"])))


def randomness_of(vector: Vector, length: int) -> bytes:
    """SHAKE-256 of the seed: FLOE IV (32), metadata nonce (12), an IV for each segment (12), footer nonce (12)."""
    return hashlib.shake_256(str(vector["seed"]).encode()).digest(length)


def write(vector: Vector) -> bytes:
    """The whole stored object."""
    plaintext = plaintext_of(vector)
    segments = [plaintext[at : at + SEGMENT] for at in range(0, len(plaintext) + 1, SEGMENT)]
    randomness = randomness_of(vector, 44 + 12 * len(segments) + 12)
    floe_iv, metadata_nonce, footer_nonce = randomness[:32], randomness[32:44], randomness[-12:]
    data_key = bytes.fromhex(str(vector["data_key"]))

    # Header.
    core = _core(vector)
    wrap = _text(1, vector["key_arn"]) + _bytes(2, bytes.fromhex(str(vector["wrapped_key"])))
    metadata_key = _expand(data_key, b"keystow/v1/metadata\0" + floe_iv, 32)
    metadata = metadata_nonce + AESGCM(metadata_key).encrypt(metadata_nonce, _metadata(vector), core)
    header = b"KEYSTOW\0" + struct.pack(">HHHHH", 1, 1, len(core), len(wrap), len(metadata)) + core + wrap + metadata
    header += bytes(4096 - len(header))

    # FLOE header.
    aad = b"keystow/v1/object\0" + core
    info = bytes([0, 0]) + struct.pack(">I", SEGMENT + 32) + struct.pack(">I", 32) + floe_iv
    floe_header = info + _expand(data_key, info + b"HEADER_TAG:" + aad, 32)

    # Segments. None of these objects reaches 2**20 of them, so there is one segment key.
    message_key = _expand(data_key, info + b"MESSAGE_KEY:" + aad, 48)
    segment_key = _expand(message_key, info + b"DEK:" + bytes(8) + aad, 32)
    body = []
    chain = bytes(32)
    for position, segment in enumerate(segments):
        final = position == len(segments) - 1
        iv = randomness[44 + 12 * position : 56 + 12 * position]
        segment_aad = struct.pack(">Q", position) + (b"\1" if final else b"\0")
        sealed = AESGCM(segment_key).encrypt(iv, segment, segment_aad)
        length = struct.pack(">I", 32 + len(segment)) if final else b"\xff\xff\xff\xff"
        body.append(length + iv + sealed)
        chain = hashlib.sha256(chain + sealed[-16:]).digest()

    # Footer.
    sha256 = hashlib.sha256(plaintext).digest() if vector["sha256_present"] else bytes(32)
    flags = 1 if vector["sha256_present"] else 0
    sums = struct.pack(">QII", len(plaintext), google_crc32c.value(plaintext), flags) + sha256 + chain + bytes(4)
    footer_key = _expand(data_key, b"keystow/v1/footer\0" + floe_iv, 32)
    footer = footer_nonce + AESGCM(footer_key).encrypt(footer_nonce, sums, core)

    return b"".join([header, floe_header, *body, footer])


def _expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand-SHA-384 (RFC 5869, section 2.3) for up to one block."""
    return hmac.digest(key, info + b"\1", "sha384")[:length]


def _core(vector: Vector) -> bytes:
    created = datetime.fromisoformat(str(vector["create_time"])) - datetime(1970, 1, 1, tzinfo=UTC)
    seconds, nanos = created.days * 86400 + created.seconds, created.microseconds * 1000
    time = b"\x08" + _varint(seconds) + (b"\x10" + _varint(nanos) if nanos else b"")
    return (
        _text(1, vector["tenant_id"])
        + _text(2, vector["key"])
        + _text(3, vector["upload_id"])
        + _bytes(4, time)
        + _text(5, vector["deployment_id"])
    )


def _metadata(vector: Vector) -> bytes:
    user = vector["metadata"]
    assert isinstance(user, Mapping)
    entries = b"".join(_bytes(2, _bytes(1, k.encode()) + _bytes(2, v.encode())) for k, v in sorted(user.items()))
    return (
        _text(1, vector["content_type"])
        + entries
        + _text(3, vector["principal"])
        + _bytes(4, bytes.fromhex(str(vector["put_header_hash"])))
    )


def _text(number: int, text: object) -> bytes:
    return _bytes(number, str(text).encode()) if text else b""


def _bytes(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


SIZES = {
    "0 bytes": 0,
    "1 byte": 1,
    "1 MiB - 1": (1 << 20) - 1,
    "1 MiB": 1 << 20,
    "1 MiB + 1": (1 << 20) + 1,
    "8 MiB - 1": (8 << 20) - 1,
    "8 MiB": 8 << 20,
    "8 MiB + 1": (8 << 20) + 1,
}
WHOLE_UP_TO = 1  # larger objects are frozen by their hash


def _vector(name: str, size: int) -> dict[str, str | int | bool | Mapping[str, str]]:
    rich = size % 2 == 1  # every other vector exercises the optional fields
    return {
        "name": name,
        "size": size,
        "seed": f"keystow vector: {name}",
        "data_key": hashlib.sha256(f"data key: {name}".encode()).hexdigest(),
        "wrapped_key": hashlib.shake_256(f"wrapped key: {name}".encode()).hexdigest(184),
        "key_arn": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "tenant_id": "acme",
        "key": "backups/2026-11-23/Übersicht #1.json" if rich else "a",
        "upload_id": "0b0e8a4e-7a39-4d0a-9c1c-3f3c5e6f7a8b",
        "create_time": "2026-11-23T22:21:07.123456+00:00" if rich else "2026-11-23T22:21:07+00:00",
        "deployment_id": "prod-eu-1",
        "content_type": "application/json" if rich else "",
        "metadata": {"zone": "b", "account": "Ärzte", "empty": ""} if rich else {},
        "principal": "spiffe://example.org/connector" if rich else "anonymous",
        "put_header_hash": hashlib.sha256(f"put header: {name}".encode()).hexdigest(),
        "sha256_present": rich,
    }


def _frozen(name: str, size: int) -> dict[str, str | int | bool | Mapping[str, str]]:
    vector = _vector(name, size)
    stored = write(vector)
    vector |= {"stored_size": len(stored), "stored_sha256": hashlib.sha256(stored).hexdigest()}
    if size <= WHOLE_UP_TO:
        vector["stored"] = stored.hex()
    return vector


if __name__ == "__main__":
    print(json.dumps([_frozen(*item) for item in SIZES.items()], indent=2, ensure_ascii=False))  # noqa: T201 - the file
