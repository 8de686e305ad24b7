"""The optimizers against torch's Adam and a written-out RMSProp of TensorFlow's kind."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.learning.gpu_optimizer import BranchFreeOptimizer
from impala_redis.common.learning.learner import scheduled
from impala_redis.common.learning.torch_optimizer import Optimizer
from impala_redis.common.run.groups import OptimizerSettings

Floats = NDArray[np.float64]
Named = list[tuple[str, Tensor]]

SHAPES = {
    "convolution": (2, 3, 4, 2),
    "torso.weight": (5, 3),
    "torso.bias": (5,),
    "head": (2, 5),
    "scalar": (),
}
AnyOptimizer = Optimizer | BranchFreeOptimizer
Make = type[Optimizer] | type[BranchFreeOptimizer]
# That of a CPU, and that of a GPU, which looks at no number.
both = pytest.mark.parametrize("make", [Optimizer, BranchFreeOptimizer])


def parameters() -> Named:
    generator = torch.Generator().manual_seed(1)
    return [
        (name, torch.randn(shape, generator=generator).requires_grad_())
        for name, shape in SHAPES.items()
    ]


def give_gradients(named: Named, step: int, factor: float = 1.0) -> None:
    """Other gradients at each step, of very different sizes between the parameters."""
    generator = torch.Generator().manual_seed(100 + step)
    for index, (_, parameter) in enumerate(named):
        gradient = torch.randn(parameter.shape, generator=generator) * 10.0 ** (index - 3)
        parameter.grad = gradient * factor


def settings(optimizer: str, **changes: Any) -> OptimizerSettings:
    """Without clipping unless asked for."""
    return OptimizerSettings(optimizer=optimizer, **({"grad_norm_clipping": None} | changes))


def snapshot(named: Named, optimizer: AnyOptimizer) -> dict[str, Tensor]:
    """Copies of all parameters and of the optimizer's state."""
    parts = {name: parameter.detach().clone() for name, parameter in named}
    return parts | {name: tensor.clone() for name, tensor in optimizer.state().items()}


def step(optimizer: AnyOptimizer, learning_rate: float) -> float:
    """A step as the learner takes it; returns the norm."""
    if isinstance(optimizer, Optimizer):
        return optimizer.step(learning_rate)
    gradients = [parameter.grad for parameter in optimizer._parameters.values()]
    assert not any(gradient is None for gradient in gradients)
    gradient = optimizer.joined(gradients)  # type: ignore[arg-type]
    return float(optimizer.step(gradient, torch.tensor(learning_rate)).item())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@both
@pytest.mark.parametrize(
    ("beta1", "beta2", "epsilon"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-3), (0.0, 0.0, 1e-3)]
)
def test_adam_takes_the_steps_of_torchs_adam(
    make: Make, beta1: float, beta2: float, epsilon: float
) -> None:
    # given
    ours, theirs = parameters(), parameters()
    optimizer = make(
        ours, settings("adam", adam_beta1=beta1, adam_beta2=beta2, adam_epsilon=epsilon)
    )
    reference = torch.optim.Adam(
        [parameter for _, parameter in theirs], lr=1e-3, betas=(beta1, beta2), eps=epsilon
    )

    # when
    for number in range(50):
        give_gradients(ours, number)
        give_gradients(theirs, number)
        step(optimizer, 1e-3)
        reference.step()

    # then
    for (name, mine), (_, other) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-6, err_msg=name)


@both
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("decay", "epsilon"), [(0.99, 0.01), (0.5, 1e-5)])
def test_rmsprop_takes_the_steps_of_tensorflows(
    make: Make, decay: float, epsilon: float, momentum: float
) -> None:
    # given
    named = parameters()
    optimizer = make(
        named,
        settings(
            "rmsprop", rmsprop_decay=decay, rmsprop_epsilon=epsilon, rmsprop_momentum=momentum
        ),
    )
    expected: dict[str, Floats] = {n: p.detach().double().numpy() for n, p in named}
    mean_square = {name: np.ones_like(value) for name, value in expected.items()}
    moment = {name: np.zeros_like(value) for name, value in expected.items()}

    # when
    for number in range(20):
        give_gradients(named, number)
        for name, parameter in named:
            assert parameter.grad is not None
            g = parameter.grad.double().numpy()
            mean_square[name] = decay * mean_square[name] + (1 - decay) * g**2
            moment[name] = momentum * moment[name] + 1e-3 * g / np.sqrt(mean_square[name] + epsilon)
            expected[name] = expected[name] - moment[name]
        step(optimizer, 1e-3)

    # then
    for name, parameter in named:
        np.testing.assert_allclose(
            parameter.detach().numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name
        )


@both
def test_rmsprops_squared_average_starts_at_one(
    make: Make,
) -> None:
    # given
    named = [("w", torch.zeros(1, requires_grad=True))]
    optimizer = make(named, settings("rmsprop", rmsprop_decay=0.75, rmsprop_epsilon=0.25))
    assert optimizer.state()["square.w"].item() == 1.0

    # when
    named[0][1].grad = torch.tensor([6.0])
    step(optimizer, 1.0)

    # then: 0.75 * 1 + 0.25 * 36 = 9.75, and 0.25 joins it under the root
    assert optimizer.state()["square.w"].item() == pytest.approx(9.75)
    assert named[0][1].item() == pytest.approx(-6 / np.sqrt(10.0))


@both
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_gradients_above_the_bound_are_scaled_down_together(make: Make, kind: str) -> None:
    # given
    clipped, scaled = parameters(), parameters()
    give_gradients(clipped, 0)
    norm = float(sum((p.grad**2).sum() for _, p in clipped if p.grad is not None) ** 0.5)
    bound = norm / 8
    give_gradients(scaled, 0, factor=1 / 8)
    clipping = make(clipped, settings(kind, grad_norm_clipping=bound))
    plain = make(scaled, settings(kind))

    # when
    reported = step(clipping, 1e-2)
    step(plain, 1e-2)

    # then
    assert reported == pytest.approx(norm, rel=1e-6)  # before the clip
    mine, expected = snapshot(clipped, clipping), snapshot(scaled, plain)
    for name, tensor in mine.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


@both
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_gradients_within_the_bound_are_left_alone(make: Make, kind: str) -> None:
    # given
    bounded, free = parameters(), parameters()
    bounding = make(bounded, settings(kind, grad_norm_clipping=1e6))
    plain = make(free, settings(kind))

    # when
    for named, optimizer in ((bounded, bounding), (free, plain)):
        give_gradients(named, 0)
        step(optimizer, 1e-2)

    # then
    assert same(snapshot(bounded, bounding), snapshot(free, plain))


@pytest.mark.parametrize("bound", [None, 1.0, 1e6])
@pytest.mark.parametrize(
    ("kind", "changes"), [("adam", {}), ("rmsprop", {"rmsprop_momentum": 0.9})]
)
def test_steps_that_look_at_no_norm_are_the_same_steps(
    kind: str, changes: dict[str, float], bound: float | None
) -> None:
    # given: a refused gradient among good ones, the first of them zero
    looking, blind = parameters(), parameters()
    chosen = settings(kind, grad_norm_clipping=bound, **changes)
    optimizers: list[AnyOptimizer] = [
        Optimizer(looking, chosen),
        BranchFreeOptimizer(blind, chosen),
    ]

    # when
    norms = []
    for number, factor in enumerate((0.0, 1.0, float("nan"), 1.0)):
        for named, optimizer in zip((looking, blind), optimizers, strict=True):
            give_gradients(named, number, factor)
            norms.append(step(optimizer, 1e-2))

    # then
    np.testing.assert_array_equal(norms[::2], norms[1::2])
    expected = snapshot(looking, optimizers[0])
    for name, tensor in snapshot(blind, optimizers[1]).items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


@both
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_a_gradient_without_a_finite_norm_leaves_everything_as_it_was(
    make: Make, kind: str, bad: float
) -> None:
    # given: one bad number among good ones, after a good step
    named = parameters()
    optimizer = make(named, settings(kind, grad_norm_clipping=1.0))
    give_gradients(named, 0)
    step(optimizer, 1e-2)
    before, steps = snapshot(named, optimizer), optimizer.steps

    # when
    give_gradients(named, 1)
    gradient = dict(named)["torso.weight"].grad
    assert gradient is not None
    gradient[2, 1] = gradient[3, 1] = bad
    norm = step(optimizer, 1e-2)

    # then
    assert not math.isfinite(norm)
    assert same(snapshot(named, optimizer), before)
    assert optimizer.steps == steps


@both
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_training_goes_on_after_a_refused_gradient_as_if_it_had_not_been(
    make: Make, kind: str
) -> None:
    # given
    disturbed, calm = parameters(), parameters()
    optimizers = [make(disturbed, settings(kind)), make(calm, settings(kind))]

    # when
    for number in range(3):
        if number == 1:
            give_gradients(disturbed, 77, factor=float("nan"))
            step(optimizers[0], 1e-2)
        for named, optimizer in zip((disturbed, calm), optimizers, strict=True):
            give_gradients(named, number)
            step(optimizer, 1e-2)

    # then
    assert same(snapshot(disturbed, optimizers[0]), snapshot(calm, optimizers[1]))


@pytest.mark.parametrize("factor", [1.0, float("nan")])
def test_gradients_are_cleared_by_every_step(factor: float) -> None:
    # given
    named = parameters()
    optimizer = Optimizer(named, settings("adam"))
    give_gradients(named, 0, factor)

    # when
    step(optimizer, 1e-2)

    # then
    assert all(parameter.grad is None for _, parameter in named)


@both
@pytest.mark.parametrize(
    ("kind", "slots"), [("adam", ("average", "square")), ("rmsprop", ("square", "momentum"))]
)
def test_every_state_tensor_has_a_name_of_its_own(
    make: Make, kind: str, slots: tuple[str, str]
) -> None:
    # given
    named = parameters()
    optimizer = make(named, settings(kind))

    # when
    state = optimizer.state()

    # then
    assert set(state) == {f"{slot}.{name}" for slot in slots for name in SHAPES}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    for name, tensor in state.items():
        assert tuple(tensor.shape) == SHAPES[name.partition(".")[2]]


@both
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_an_optimizer_given_anothers_state_goes_on_like_it(make: Make, kind: str) -> None:
    # given
    first, second = parameters(), parameters()
    one, other = make(first, settings(kind)), make(second, settings(kind))
    for number in range(3):
        give_gradients(first, number)
        step(one, 1e-2)

    # when
    for name, tensor in other.state().items():
        tensor.copy_(one.state()[name])
    for (_, mine), (_, theirs) in zip(second, first, strict=True):
        mine.data.copy_(theirs.data)
    other.steps = one.steps
    for named, optimizer in ((first, one), (second, other)):
        give_gradients(named, 3)
        step(optimizer, 1e-2)

    # then
    assert same(snapshot(first, one), snapshot(second, other))


@pytest.mark.parametrize(
    ("schedule", "frames", "expected"),
    [
        ("constant", 0, 0.6),
        ("constant", 5000, 0.6),
        ("linear", 0, 0.6),
        ("linear", 250, 0.45),
        ("linear", 500, 0.3),
        ("linear", 1000, 0.0),
        ("linear", 5000, 0.0),
    ],
)
def test_a_schedule_is_constant_or_falls_to_zero_at_total_frames(
    schedule: str, frames: int, expected: float
) -> None:
    assert scheduled(0.6, schedule, frames, total_frames=1000) == pytest.approx(expected, abs=1e-15)


@both
def test_the_parameters_become_views_of_one_vector(make: Make) -> None:
    # given
    named = parameters()
    before = {name: parameter.detach().clone() for name, parameter in named}

    # when the optimizer takes them over
    optimizer = make(named, settings("adam"))

    # then they are what they were
    assert all(torch.equal(parameter, before[name]) for name, parameter in named)

    # and what happens to the vector happens to them
    optimizer.flat.zero_()
    assert all(not parameter.any() for _, parameter in named)
    views = optimizer.views(optimizer.flat)
    assert {name: view.shape for name, view in views.items()} == {n: p.shape for n, p in named}


@both
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_every_parameter_begins_where_a_gpus_faster_kernels_want_it(
    make: Make, optimizer: str
) -> None:
    # given parameters of sizes that are no multiple of anything
    named = parameters()
    made = make(named, settings(optimizer))

    # when some steps are taken
    for number in range(3):
        give_gradients(named, number)
        step(made, 1e-3)

    # then each begins at a multiple of 64 bytes, and between them is nothing
    whole, within = made.flat, torch.zeros_like(made.flat, dtype=torch.bool)
    for name, parameter in named:
        assert parameter.data.data_ptr() == whole[made.parts[name]].data_ptr()
        assert (parameter.data.data_ptr() - whole.data_ptr()) % 64 == 0
        within[made.parts[name]] = True
    assert within.sum() == sum(parameter.numel() for _, parameter in named)
    assert not whole[~within].any()
    assert whole.data_ptr() % 64 == 0


def test_convolutions_lie_as_a_gpu_takes_them_and_travel_as_they_are_shaped() -> None:
    # given
    cpu, gpu = parameters(), parameters()
    optimizers = Optimizer(cpu, settings("adam")), BranchFreeOptimizer(gpu, settings("adam"))

    # when
    travelling = [torch.empty_like(optimizer.flat) for optimizer in optimizers]
    for optimizer, out in zip(optimizers, travelling, strict=True):
        optimizer.travelling(optimizer.flat, out=out)

    # then
    assert dict(gpu)["convolution"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(*travelling)
    assert torch.equal(travelling[0], optimizers[0].flat)
    assert not torch.equal(travelling[1], optimizers[1].flat)
