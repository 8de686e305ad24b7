"""The steps in numpy, held to those in torch."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from impala_redis.common.learning.torch_optimizer import Optimizer as TorchOptimizer
from impala_redis.common.mlp.optimizer import Optimizer
from impala_redis.common.mlp.parameters import layout_of, views
from impala_redis.common.run.groups import OptimizerSettings

SHAPES: dict[str, tuple[int, ...]] = {
    "log_std": (2,),
    "torso.0.weight": (5, 7),
    "torso.0.bias": (5,),
}
LAYOUT = layout_of(SHAPES)


def settings(optimizer: Any, **changes: Any) -> OptimizerSettings:
    return OptimizerSettings(optimizer=optimizer, **({"grad_norm_clipping": None} | changes))


def some_gradient(seed: int) -> NDArray[np.float32]:
    """A gradient by all parameters, between which there is nothing."""
    gradient = np.zeros_like(Optimizer(LAYOUT, settings("adam")).flat)
    rng = np.random.default_rng(seed)
    for view in views(LAYOUT, gradient).values():
        view[...] = rng.normal(0.0, 1.0, view.shape)
    return gradient


@pytest.mark.parametrize(
    "chosen",
    [
        settings("adam"),
        settings("adam", adam_beta1=0.5, adam_epsilon=1e-3, grad_norm_clipping=2.0),
        settings("rmsprop"),
        settings("rmsprop", rmsprop_momentum=0.9, rmsprop_decay=0.9, grad_norm_clipping=2.0),
    ],
    ids=lambda chosen: f"{chosen.optimizer}, clip {chosen.grad_norm_clipping}",
)
def test_steps_and_state_are_torchs(chosen: OptimizerSettings) -> None:
    # given
    ours = Optimizer(LAYOUT, chosen)
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}
    theirs = TorchOptimizer(parameters.items(), chosen)

    # when
    for seed in range(20):
        ours.gradient[...] = some_gradient(seed)
        for name, view in views(LAYOUT, ours.gradient).items():
            parameters[name].grad = torch.from_numpy(view.copy())
        norm = theirs.step(1e-2)
        assert ours.step(1e-2) == pytest.approx(norm, rel=1e-6)

    # then
    np.testing.assert_allclose(ours.flat, theirs.flat.numpy(), rtol=1e-5, atol=1e-7)
    assert list(ours.state()) == list(theirs.state())
    for name, tensor in theirs.state().items():
        np.testing.assert_allclose(ours.state()[name], tensor.numpy(), rtol=1e-5, atol=1e-8)
    assert ours.steps == theirs.steps == 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_a_gradient_without_a_finite_norm_leaves_everything_as_it_was(
    kind: str, bad: float
) -> None:
    # given
    optimizer = Optimizer(LAYOUT, settings(kind, grad_norm_clipping=1.0))
    optimizer.gradient[...] = some_gradient(0)
    optimizer.step(1e-2)
    before = [optimizer.flat.copy(), *(slot.copy() for slot in optimizer.state().values())]

    # when
    optimizer.gradient[...] = some_gradient(1)
    optimizer.gradient[20] = bad
    with np.errstate(all="ignore"):
        norm = optimizer.step(1e-2)

    # then
    assert not np.isfinite(norm)
    after = [optimizer.flat, *optimizer.state().values()]
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    assert optimizer.steps == 1
