"""scripts/bench/roofline.py: the operations that it counts are those that torch counts."""

import importlib
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from impala_redis.common.networks.network import make_network
from impala_redis.common.run.spaces import ObservationSpec, discrete
from small_networks import FLOATS, PARTS, make_spec, seen_by, some_observations
from support import ROOT

ROWS, ENVS = 3, 1
SCREEN = ObservationSpec((44, 40), "uint8", frame_stack=2, scale=(255,))


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("bench.roofline")


def test_a_frame_of_cartpole_is_28_100_operations(roofline: Any) -> None:
    # given the preset's network: 4 inputs, two hidden layers of 64, two actions and a value
    spec = make_spec(ObservationSpec((4,), "float32"), action=discrete(2), hidden_sizes=(64, 64))

    # then a row is two operations for each weight forward, as many for the weights' gradients, and
    # for those of the inputs as many without the first layer's 256 weights
    weights = 4 * 64 + 64 * 64 + 64 * 2 + 64
    assert weights == 4544
    row = 2 * weights + 2 * weights + 2 * (weights - 256)
    assert sum(layer.flop for layer in roofline.layers_of(spec)) == row
    # and 21 rows are computed for 20 frames
    assert roofline.flop_a_frame(spec, 20) == row * 21 / 20 == pytest.approx(28_090, abs=1)


@pytest.mark.parametrize(
    ("observation", "changes"),
    [
        (FLOATS, {}),
        (SCREEN, {"network": "nature"}),
        (SCREEN, {"network": "deep"}),
        (PARTS, {"network": "deep"}),
        (FLOATS, {"lstm_size": 12, "extra_inputs": "last_action_reward"}),
    ],
    ids=["mlp", "nature", "deep", "two pictures", "lstm"],
)
def test_what_is_counted_is_what_torch_counts(
    roofline: Any, observation: ObservationSpec, changes: dict[str, Any]
) -> None:
    # given an update's products in torch
    spec = make_spec(observation, **changes)
    network = make_network(spec, seed=0)
    rows = spec.observation.history + ROWS
    inputs = seen_by(spec, some_observations(observation, rows, ENVS))
    with FlopCounterMode(display=False) as counter:
        output = network(inputs)
        (output.policy.sum() + output.baseline.sum()).backward()  # type: ignore[no-untyped-call]

    # then they are as many, but for the gradient of a memory before the first row: nobody needs it
    first = 2 * ENVS * 4 * spec.lstm_size * spec.lstm_size
    counted = ROWS * ENVS * sum(layer.flop for layer in roofline.layers_of(spec))
    assert counter.get_total_flops() == counted - first


@pytest.mark.parametrize(("rows", "piece", "pieces"), [(30, 30, 1), (14_000, 1344, 10)])
def test_the_product_is_of_the_layer_that_costs_most_in_pieces_that_stay_in_the_cache(
    roofline: Any, monkeypatch: pytest.MonkeyPatch, rows: int, piece: int, pieces: int
) -> None:
    # given all rows of a batch
    shapes = list[tuple[Any, ...]]()
    multiplied = roofline.np.matmul

    def matmul(left: Any, right: Any, out: Any) -> None:
        shapes.append((left.shape, right.shape, out.shape))
        multiplied(left, right, out)

    monkeypatch.setattr(roofline.np, "matmul", matmul)
    product = roofline.product_of(make_spec(FLOATS, hidden_sizes=(16, 8)), rows)

    # when they are multiplied
    product.call()

    # then its operations are those of the shapes
    assert shapes == pieces * [((piece, 16), (16, 8), (piece, 8))]
    assert product.flop == pieces * 2 * piece * 16 * 8
