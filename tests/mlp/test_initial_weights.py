"""A plain network's first weights without torch, held to those that torch makes."""

import numpy as np
import pytest

from impala_redis.common.mlp.initial_weights import initial_weights
from impala_redis.common.networks.network import make_network
from impala_redis.common.run.spaces import ObservationSpec
from impala_redis.common.run.spec import RunSpec
from small_networks import ACTIONS, FLOATS, INDEX, PARTS, make_spec

WIDE = ObservationSpec((300,), "float32")
SEEDS = (0, 5, 2**63 - 1)

SPECS = {
    **{action: make_spec(action=spec) for action, spec in ACTIONS.items()},
    "an index": make_spec(INDEX),
    "several parts": make_spec(PARTS),
    "no hidden layer": make_spec(hidden_sizes=()),
    "layers of one": make_spec(ObservationSpec((1,), "float32"), hidden_sizes=(1, 1)),
    "a small layer": make_spec(hidden_sizes=(8,)),
    "a square layer": make_spec(hidden_sizes=(64, 64), activation="relu"),
    "wide layers": make_spec(WIDE, hidden_sizes=(128, 256)),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_weights_are_those_that_torch_makes(spec: RunSpec, seed: int) -> None:
    # when
    weights = initial_weights(spec, seed)

    # then
    expected = {
        name: parameter.detach().numpy()
        for name, parameter in make_network(spec, seed).named_parameters()
    }
    assert list(weights) == list(expected)
    for name, tensor in weights.items():
        assert tensor.dtype == np.float32 and tensor.flags.c_contiguous
        # The decomposition of a square matrix magnifies what rounding made of its numbers.
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=5e-6, err_msg=name)


def test_another_seed_gives_other_weights() -> None:
    # when
    first, other = (initial_weights(make_spec(), seed) for seed in (0, 1))

    # then
    assert not np.allclose(first["policy.weight"], other["policy.weight"], atol=1e-4)


def test_hidden_layers_begin_orthogonal() -> None:
    # when
    weight = initial_weights(make_spec(FLOATS, hidden_sizes=(64,)), 0)["torso.0.weight"]

    # then
    np.testing.assert_allclose(weight.T @ weight, 2.0 * np.eye(3), atol=1e-6)
