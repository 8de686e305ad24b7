"""TensorFlow's format of records in a file, which TensorBoard reads.

TensorBoard's own writer takes 0.1 s to import, and a run that ends within seconds waits for that.
Layout, little-endian: the length (8 bytes), its checksum (4), the data, their checksum (4). A
checksum is a CRC-32C (RFC 3720, appendix B.4), rotated, plus a constant ("masked"), since a CRC of
data that contain CRCs is weak.
"""

import struct

# The polynomial of CRC-32C, its bits reversed.
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8


def framed(data: bytes) -> bytes:
    """One record: data between their length and their checksum."""
    header = struct.pack("<Q", len(data))
    return b"".join((header, _checksum(header), data, _checksum(data)))


def crc32c(data: bytes) -> int:
    """The CRC-32C of data."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


def _remainder(byte: int) -> int:
    """What the polynomial leaves of one byte."""
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_remainder, range(256)))
