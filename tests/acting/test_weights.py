"""Published weights are used only as they were published, and only by a run they fit."""

import dataclasses
import hashlib

import numpy as np
import pytest

from impala_redis.common.acting.weights import unpack_reply
from impala_redis.common.blocks import wire
from impala_redis.common.errors import MessageRefused
from impala_redis.common.transport.replies import WeightsReply
from small_networks import make_spec

SPEC = make_spec()
WEIGHTS = {name: np.full(shape, 0.5, np.float32) for name, shape in SPEC.parameter_shapes().items()}
MESSAGE = wire.pack_weights(WEIGHTS, 7, SPEC)


def reply(message: bytes, digest: str = "") -> WeightsReply:
    return WeightsReply(7, message, digest or hashlib.sha256(message).hexdigest())


def test_weights_come_with_their_version() -> None:
    version, weights, _ = unpack_reply(reply(MESSAGE), SPEC)
    assert version == 7
    assert weights.keys() == WEIGHTS.keys()
    for name, values in WEIGHTS.items():
        np.testing.assert_array_equal(weights[name], values)


def test_another_digest_than_the_published_one_is_refused() -> None:
    with pytest.raises(MessageRefused, match="digest does not fit") as caught:
        unpack_reply(reply(MESSAGE, "0" * 64), SPEC)
    assert caught.value.reason == "malformed"


def test_weights_of_another_network_are_refused() -> None:
    other = dataclasses.replace(SPEC, hidden_sizes=(5,))
    with pytest.raises(MessageRefused):
        unpack_reply(reply(MESSAGE), other)
