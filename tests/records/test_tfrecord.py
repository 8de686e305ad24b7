"""The records of an event file: as TensorFlow frames them."""

import io
import random

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from impala_redis.common.records.tfrecord import crc32c, framed

# RFC 3720, appendix B.4: 32 bytes each.
VECTORS = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(reversed(range(32))): 0x113FDB5C,
}


@pytest.mark.parametrize(("data", "checksum"), VECTORS.items(), ids=map(hex, VECTORS.values()))
def test_the_checksum_is_that_of_the_rfc(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@pytest.mark.parametrize("length", [0, 1, 7, 8, 1000])
def test_a_record_is_the_one_that_tensorboard_writes(length: int) -> None:
    # given
    data = random.Random(length).randbytes(length)

    # when
    written = io.BytesIO()
    RecordWriter(written).write(data)

    # then
    assert framed(data) == written.getvalue()
