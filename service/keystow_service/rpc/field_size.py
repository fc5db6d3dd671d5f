"""How large one field of a message is, found out before the message is parsed.

A map costs far more to parse than its bytes say: in the order in which another map held its entries, each one that is
put into the next table collides with those before, and 3 MiB of them take seconds, in which the server does nothing
else. (https://protobuf.dev/programming-guides/encoding/)
"""

_MAX_FIELDS = 64  # at the top of a message; ours have a handful
_VARINT, _BYTES = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # and those that say how many bytes follow
_LAST_OF_VARINT = 0x80  # is less than this
_MAX_VARINT = 10  # bytes


def field_size(data: bytes, number: int) -> int:
    """Bytes of all occurrences of the field, which a parser merges, at the top of an encoded message.

    Raises ValueError for what no message of ours looks like.
    """
    size = position = 0
    for _ in range(_MAX_FIELDS):
        if position == len(data):
            return size
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type in (_VARINT, _BYTES):
            value, position = _varint(data, position)
            length = value if wire_type == _BYTES else 0
        elif wire_type in _FIXED:
            length = _FIXED[wire_type]
        else:
            raise ValueError("a group, or no wire type")
        if tag >> 3 == number:
            size += length
        position += length
        if position > len(data):
            raise ValueError("a field goes on after the end")
    raise ValueError("too many fields")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MAX_VARINT):
        if position == len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << 7 * shift
        if byte < _LAST_OF_VARINT:
            return value, position
    raise ValueError("a varint without an end")
