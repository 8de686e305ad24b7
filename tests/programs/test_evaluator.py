"""impala-eval and a live run: it plays with what a learner has published, or says why it cannot."""

from collections.abc import Iterator

import numpy as np
import pytest
import redis

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.errors import RunMissing, SpecMismatch
from impala_redis.common.playing.saved import from_live_run
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.learner_link import LearnerLink
from small_networks import make_spec


def weights_of(spec: RunSpec) -> Weights:
    return {name: np.ones(shape, np.float32) for name, shape in spec.parameter_shapes().items()}


@pytest.fixture
def learner(redis_url: str, run_name: str) -> Iterator[LearnerLink]:
    """A learner that has published version 3."""
    link, spec = LearnerLink(redis_url, run_name, "learner", 60.0), make_spec(run=run_name)
    link.open()
    link.publish(3, wire.pack_weights(weights_of(spec), 3, spec))
    link.announce(spec.to_json(), spec.fingerprint, "running")
    yield link
    link.close()


def test_a_live_run_gives_its_spec_and_weights(learner: LearnerLink) -> None:
    spec, weights = from_live_run(learner.url, learner.run)
    assert spec == make_spec(run=learner.run)
    assert weights.version == 3
    assert all((values == 1.0).all() for values in weights.weights.values())


def test_weights_that_are_not_as_published_are_not_played_with(
    learner: LearnerLink, raw: redis.Redis
) -> None:
    # given weights that fit the spec, under the digest of others
    raw.hset(learner.keys.weights, "digest", "0" * 64)

    # when / then
    with pytest.raises(SpecMismatch, match="do not fit its spec: the weights' digest"):
        from_live_run(learner.url, learner.run)


def test_a_run_that_is_not_there_is_missing(redis_url: str, run_name: str) -> None:
    with pytest.raises(RunMissing, match=f"no run '{run_name}'"):
        from_live_run(redis_url, run_name)
