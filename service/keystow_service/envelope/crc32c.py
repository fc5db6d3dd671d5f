"""CRC32C of joined runs of bytes from the CRCs of the runs (Castagnoli, RFC 3720 appendix B.4).

A chunk's CRC is computed once, to check it or to send it. The running CRC of the whole object then costs microseconds
a segment instead of a second pass over its bytes.

A CRC is a remainder of polynomials over GF(2), so that of ``a || b`` is ``crc(a) * x**(8 * len(b)) + crc(b)`` modulo
the Castagnoli polynomial; the inversions at both ends cancel out. Polynomials are written as CRC32C stores them, with
the lowest power in the highest bit.
"""

_POLYNOMIAL = 0x82F63B78
_ONE = 1 << 31  # the polynomial 1
_BYTE = 1 << 23  # x**8: what one more byte multiplies by


def _multiply(a: int, b: int) -> int:
    """Their product modulo the Castagnoli polynomial."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _byte_powers() -> tuple[int, ...]:
    """x**(8 * 2**k) for each bit k of a 64-bit length."""
    powers = [_BYTE]
    while len(powers) < 64:  # noqa: PLR2004 - bits of a length
        powers.append(_multiply(powers[-1], powers[-1]))
    return tuple(powers)


_BYTE_POWERS = _byte_powers()


def combine(first: int, second: int, second_length: int) -> int:
    """The CRC32C of a run with CRC ``first`` followed by one of ``second_length`` bytes with CRC ``second``."""
    bit = 0
    while first and second_length:
        if second_length & 1:
            first = _multiply(first, _BYTE_POWERS[bit])
        second_length >>= 1
        bit += 1
    return first ^ second
