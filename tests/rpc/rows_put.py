"""Bad requests to Put and PutSmall."""

from collections.abc import Iterator

import google_crc32c
import grpc
from google.protobuf.message import Message

from keystow.v1.storage_pb2 import WRITE_MODE_CREATE, AbortPutRequest, PutHeader, PutRequest, PutSmallRequest
from rpc.rows import (
    BAD_KEYS,
    BAD_TENANT_IDS,
    TENANT,
    UPLOAD_ID,
    Row,
    invalid,
    tenant_not_found,
)
from rpc.wire import MIB, chunk, finish, header

_Code = grpc.StatusCode
_DATA = b"content"
_WRONG_CRC32C = google_crc32c.value(_DATA) ^ 1

BEGIN = header(TENANT, "key", upload_id=UPLOAD_ID)
CHUNK = chunk(0, _DATA)
FINISH = finish(len(_DATA))
LARGEST_CHUNK = bytes(2 * MIB)


def rows() -> Iterator[Row]:
    """All of them."""
    yield from _order()
    yield from _offsets_and_sums()
    yield from _put_fields()
    yield from _common_fields()
    yield from _put_small_fields()
    yield from _resume_tokens()
    yield from _unreadable()


def _order() -> Iterator[Row]:
    sequences: dict[str, tuple[PutRequest, ...]] = {
        "nothing at all": (),
        "chunk first": (CHUNK, FINISH),
        "finish first": (FINISH,),
        "unset message first": (PutRequest(), BEGIN, CHUNK, FINISH),
        "second header": (BEGIN, BEGIN, CHUNK, FINISH),
        "header after a chunk": (BEGIN, CHUNK, BEGIN, FINISH),
        "unset message": (BEGIN, PutRequest(), CHUNK, FINISH),
        "no PutFinish": (BEGIN, CHUNK),
        "only a header": (BEGIN,),
    }
    for case, messages in sequences.items():
        yield invalid(f"Put: {case}", "Put", *messages, violations=("message",))


def _offsets_and_sums() -> Iterator[Row]:
    def row(case: str, code: grpc.StatusCode, reason: str, recovery: str, *messages: PutRequest) -> Row:
        return Row(f"Put: {case}", "Put", messages, code, reason, recovery)

    def offset(case: str, *messages: PutRequest) -> Row:
        return row(case, _Code.OUT_OF_RANGE, "OFFSET_MISMATCH", "resume", BEGIN, *messages, finish(2 * len(_DATA)))

    def size(case: str, *messages: PutRequest) -> Row:
        return row(case, _Code.INVALID_ARGUMENT, "SIZE_MISMATCH", "resume", *messages)

    def checksum(case: str, *messages: PutRequest) -> Row:
        return row(case, _Code.INVALID_ARGUMENT, "CHECKSUM_MISMATCH", "restart", *messages)

    yield offset("gap before the first chunk", chunk(1, _DATA))
    yield offset("gap between chunks", CHUNK, chunk(len(_DATA) + 1, _DATA))
    yield offset("overlapping chunks", CHUNK, chunk(len(_DATA) - 1, _DATA))
    yield offset("the same chunk twice", CHUNK, CHUNK)
    yield offset("negative offset", chunk(-1, _DATA))
    yield offset("largest offset", CHUNK, chunk((1 << 63) - 1, _DATA))
    yield offset("empty chunk elsewhere", CHUNK, chunk(0, b""))
    yield checksum("wrong CRC32C of a chunk", BEGIN, chunk(0, _DATA, crc32c=_WRONG_CRC32C), FINISH)
    yield checksum("wrong CRC32C of an empty chunk", BEGIN, CHUNK, chunk(len(_DATA), b"", crc32c=1), FINISH)
    yield checksum("wrong CRC32C of the whole", BEGIN, CHUNK, finish(len(_DATA), crc32c=_WRONG_CRC32C))
    with_sha256 = header(TENANT, "key", verify_sha256=True)
    yield checksum("wrong SHA-256", with_sha256, CHUNK, finish(len(_DATA), sha256=bytes(32)))
    yield size("PutFinish.size too large", BEGIN, CHUNK, finish(len(_DATA) + 1))
    yield size("PutFinish.size too small", BEGIN, CHUNK, finish(len(_DATA) - 1))
    yield size("more than declared", header(TENANT, "key", size=len(_DATA) - 1), CHUNK, FINISH)
    yield size("less than declared", header(TENANT, "key", size=len(_DATA) + 1), CHUNK, FINISH)
    yield size("content of an object declared empty", header(TENANT, "key", size=0), CHUNK, FINISH)
    yield size("declared, finished, never sent", header(TENANT, "key", size=len(_DATA)), FINISH)
    yield row("larger than the server takes", _Code.OUT_OF_RANGE, "OBJECT_TOO_LARGE", "none", _sized(1 << 62), CHUNK)
    yield invalid("Put: oversize chunk", "Put", BEGIN, chunk(0, LARGEST_CHUNK + b"x"), violations=("chunk.data",))
    yield Row(
        "Put: over the transport's limit", "Put", (BEGIN, chunk(0, bytes(5 * MIB))), _Code.RESOURCE_EXHAUSTED, "", ""
    )


def _sized(size: int) -> PutRequest:
    return header(TENANT, "key", size=size)


def _resume_tokens() -> Iterator[Row]:
    """What keystow never gave out: every test of bytes that it did give out is in test_resumable_put.py."""
    tokens = {
        "one byte": b"t",
        "its magic alone": b"KSR1",
        "a header that ends nowhere": b"KSR1\xff\xff",
        "zeros": bytes(4096),
        "right lengths, no header": b"KSR1\x00\x08" + bytes(8 + 74 + 64),
        "64 KiB": b"KSR1\x00\x08" + bytes(1 << 16),
    }
    bad = _Code.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID", "restart"
    for case, token in tokens.items():
        begun = header(TENANT, "key", resume_token=token)
        yield Row(f"Put: resume_token: {case}", "Put", (begun, CHUNK, FINISH), *bad)
        request = AbortPutRequest(tenant_id=TENANT, key="key", upload_id=UPLOAD_ID, resume_token=token)
        yield Row(f"AbortPut: resume_token: {case}", "AbortPut", (request,), *bad)
    fields = {"tenant_id": TENANT, "key": "key", "upload_id": UPLOAD_ID, "resume_token": b"token"}
    for field in fields:
        request = AbortPutRequest(**{**fields, field: None})  # type: ignore[arg-type] # None leaves it out
        yield invalid(f"AbortPut: no {field}", "AbortPut", request, violations=(field,))
    nobody = AbortPutRequest(**{**fields, "tenant_id": "nobody"})  # type: ignore[arg-type] # of several types
    yield tenant_not_found("AbortPut", nobody)


def _put_fields() -> Iterator[Row]:
    def row(case: str, field: str, **fields: object) -> Row:
        return invalid(f"Put: {case}", "Put", header(TENANT, "key", **fields), CHUNK, FINISH, violations=(field,))

    def finished(case: str, field: str, message: PutRequest, **fields: object) -> Row:
        return invalid(f"Put: {case}", "Put", header(TENANT, "key", **fields), CHUNK, message, violations=(field,))

    yield row("negative size", "size", size=-1)
    yield row("verify_sha256 with resumable", "verify_sha256", verify_sha256=True, resumable=True)
    exclusive: dict[str, object] = {
        "content_type": "text/plain",
        "metadata": {"name": "value"},
        "size": 0,
        "write_mode": WRITE_MODE_CREATE,
        "if_version_id": "v",
        "verify_sha256": True,
    }
    for field, value in exclusive.items():
        yield row(f"resume_token with {field}", "resume_token", resume_token=b"token", **{field: value})
    size = len(_DATA)
    yield finished("negative PutFinish.size", "finish.size", finish(-1))
    yield finished("SHA-256 missing", "finish.sha256", FINISH, verify_sha256=True)
    yield finished("SHA-256 too short", "finish.sha256", finish(size, sha256=bytes(31)), verify_sha256=True)
    yield finished("SHA-256 not asked for", "finish.sha256", finish(size, sha256=bytes(32)))
    everything = header("", "", upload_id="", content_type="\n", size=-1, write_mode=99)
    violations = ("upload_id", "content_type", "size", "write_mode")
    yield invalid("Put: several fields at once", "Put", everything, violations=violations)


def _common_fields() -> Iterator[Row]:
    """What the headers of Put and PutSmall have in common."""
    bad_fields: dict[str, tuple[str, dict[str, object]]] = {
        "empty upload_id": ("upload_id", {"upload_id": ""}),
        "upload_id that is no UUID": ("upload_id", {"upload_id": "upload-1"}),
        "upper-case UUID": ("upload_id", {"upload_id": UPLOAD_ID.upper()}),
        "UUID in braces": ("upload_id", {"upload_id": f"{{{UPLOAD_ID}}}"}),
        "UUID with a newline": ("upload_id", {"upload_id": f"{UPLOAD_ID}\n"}),
        "long content type": ("content_type", {"content_type": "a" * 256}),
        "content type with a control character": ("content_type", {"content_type": "text/plain\r\nx: y"}),
        "content type beyond ASCII": ("content_type", {"content_type": "text/é"}),
        "large metadata": ("metadata", {"metadata": {"name": "x" * 1024}}),
        "much metadata": ("metadata", {"metadata": {f"name-{number}": "value" for number in range(60)}}),
        "metadata without a name": ("metadata", {"metadata": {"": "value"}}),
        "unknown write_mode": ("write_mode", {"write_mode": 99}),
        "if_version_id with write_mode": ("if_version_id", {"if_version_id": "v", "write_mode": WRITE_MODE_CREATE}),
        "long if_version_id": ("if_version_id", {"if_version_id": "v" * 257}),
    }
    for method in ("Put", "PutSmall"):
        for case, (field, fields) in bad_fields.items():
            yield invalid(f"{method}: {case}", method, *_object(method, **fields), violations=(field,))
        for case, key in BAD_KEYS.items():
            yield invalid(f"{method}: key: {case}", method, *_object(method, key=key), violations=("key",))
        for case, tenant in BAD_TENANT_IDS.items():
            messages = _object(method, tenant_id=tenant)
            yield invalid(f"{method}: tenant id: {case}", method, *messages, violations=("tenant_id",))
        yield tenant_not_found(method, *_object(method, tenant_id="nobody"))
        yield Row(
            f"{method}: if_version_id of nothing",
            method,
            _object(method, if_version_id="v"),
            _Code.FAILED_PRECONDITION,
            "VERSION_MISMATCH",
            "none",
        )


def _object(method: str, **fields: object) -> tuple[Message, ...]:
    begin = header(**{"tenant_id": TENANT, "key": "key", **fields})  # type: ignore[arg-type] # fields of any type
    return (PutSmallRequest(header=begin.header, data=_DATA),) if method == "PutSmall" else (begin, CHUNK, FINISH)


def _put_small_fields() -> Iterator[Row]:
    def row(case: str, field: str, **fields: object) -> Row:
        return invalid(f"PutSmall: {case}", "PutSmall", *_object("PutSmall", **fields), violations=(field,))

    def small(data: bytes, crc32c: int | None = None) -> PutSmallRequest:
        return PutSmallRequest(header=BEGIN.header, data=data, crc32c=crc32c)

    yield invalid("PutSmall: no header", "PutSmall", PutSmallRequest(data=_DATA), violations=("header",))
    yield row("size", "header.size", size=len(_DATA))
    yield row("size 0", "header.size", size=0)
    yield row("resume_token", "header.resume_token", resume_token=b"token")
    yield row("resumable", "header.resumable", resumable=True)
    yield invalid("PutSmall: oversize data", "PutSmall", small(LARGEST_CHUNK + b"x"), violations=("data",))
    yield Row(
        "PutSmall: wrong CRC32C",
        "PutSmall",
        (small(_DATA, _WRONG_CRC32C),),
        _Code.INVALID_ARGUMENT,
        "CHECKSUM_MISMATCH",
        "restart",
    )
    yield Row(
        "PutSmall: over the transport's limit", "PutSmall", (small(bytes(5 * MIB)),), _Code.RESOURCE_EXHAUSTED, "", ""
    )


def _unreadable() -> Iterator[Row]:
    """Broken in the middle of a Put; test_bad_input.py breaks the first message of every RPC."""
    truncated = chunk(0, _DATA).SerializeToString()[:-1]
    yield invalid("Put: broken chunk", "Put", BEGIN, truncated, FINISH, violations=("",))
    yield invalid("Put: broken finish", "Put", BEGIN, CHUNK, b"\xff\xff\xff", violations=("",))
    bad_key = PutRequest(header=PutHeader(key="??")).SerializeToString().replace(b"??", b"\xff\xfe")
    yield invalid("Put: key that is not UTF-8", "Put", bad_key, violations=("",))
    bad_name = PutRequest(header=PutHeader(metadata={"??": ""})).SerializeToString().replace(b"??", b"\xc3\x28")
    yield invalid("Put: metadata that is not UTF-8", "Put", bad_name, violations=("",))
    yield from _never_parsed()


def _never_parsed() -> Iterator[Row]:
    """Headers too large to be valid cost no parsing: what is in them is broken, and nobody finds out."""
    half = b"\x0a\xe0\xa7\x04" + b"\xff" * 70_624  # field 1, and its length
    large = b"\x0a\xc1\x84\x08" + b"\xff" * 131_649
    for method in ("Put", "PutSmall"):
        for case, message in {
            "oversize header": large,
            "in two pieces": half + half,
            "behind something else": CHUNK.SerializeToString() + b"\x18\x01" + large,
        }.items():
            yield invalid(f"{method}: oversize header, {case}", method, message, violations=("header",))
        for case, message in {
            "without end": b"\x0a\xff" + b"\xff" * 131_072,
            "past the end": large[:-1],
            "a group": b"\x0b" + bytes(131_072),
            "a crowd": b"\x18\x01" * 65_537,
        }.items():
            yield invalid(f"{method}: no header, {case}", method, message, violations=("",))
