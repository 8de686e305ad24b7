"""The engine in numpy: the same updates as torch's, in pieces and threads, and what it refuses."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.learning import numpy_worker
from impala_redis.common.learning.engine import Rates
from impala_redis.common.learning.numpy_engine import NumpyEngine
from impala_redis.common.mlp import activations, products
from impala_redis.common.mlp.parameters import views
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import LOG_STD_MOST, ActionSpec, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec
from plain_networks import TorchUpdates, config_of, lively_weights, some_rows, spec_of
from small_networks import ACTIONS, INDEX, PARTS, PIXELS

Arrays = dict[str, NDArray[np.float32]]

B = 5
NO_CLIPS = {"clip_rho": None, "clip_c": None, "clip_pg_rho": None}
LOSSES: list[dict[str, Any]] = [
    {},
    {"reduction": "mean"},
    NO_CLIPS,
    {"clip_rho": 2.5, "clip_c": 0.5, "clip_pg_rho": 1.5, "lambda_": 0.7},
    {"clip_c": None, "clip_rho": None},
    {"discounting": 0.5, "baseline_cost": 2.0},
    {"baseline_cost": 0.0, "entropy_cost": 0.0},
    {"entropy_cost": 0.3, "reward_clipping": "abs_one", "reward_scale": 0.5},
    {"reward_clipping": "soft_asymmetric"},
    {"normalize_advantages": True, "reduction": "mean"},
    {"normalize_advantages": True, "correction": "epsilon", "returns": "monte_carlo"},
    {"normalize_rewards": True, "reward_scale": 0.5},
    {"correction": "one_step", "clip_pg_rho": 1.3},
    {"correction": "one_step", "clip_pg_rho": None, "lambda_": 0.5},
    {"correction": "epsilon", "entropy_cost": 0.1},
    {"correction": "none", "lambda_": 0.0},
    {"correction": "none", "returns": "monte_carlo"},
    {"correction": "one_step", "returns": "monte_carlo", "reduction": "mean"},
    {"correction": "epsilon", "returns": "monte_carlo", "baseline_cost": 0.0},
]


@pytest.fixture(autouse=True, scope="module")
def one_computing_thread() -> Iterator[None]:
    """Keeps the library below numpy from threads of its own, as the learner does."""
    with threadpool_limits(limits=1):
        yield


def rates_of(config: Config) -> Rates:
    return Rates(config.optimizer.learning_rate, config.loss.entropy_cost)


class Case:
    """One run for both engines, which begin with the same parameters."""

    def __init__(
        self,
        action: ActionSpec | None = None,
        observation: ObservationSpec | None = None,
        threads: int = 1,
        **changes: Any,
    ) -> None:
        self.config = config_of(**changes)
        chosen = {} if observation is None else {"observation": observation}
        self.spec: RunSpec = spec_of(self.config, action, **chosen)
        weights = lively_weights(self.spec)
        self.torch = TorchUpdates(self.spec, self.config, weights)
        self.numpy = NumpyEngine(self.spec, self.config, weights, threads)
        self.rates = rates_of(self.config)

    def rows(self, columns: int = B, seed: int = 0) -> Trajectory:
        return some_rows(self.spec, columns, seed)

    def gradient(self, rows: Trajectory) -> Arrays:
        assert self.numpy.allows_step(rows, self.rates)
        return views(self.numpy.layout, self.numpy._optimizer.gradient.copy())


def weights_of(engine: NumpyEngine) -> Weights:
    flat = engine.flat()
    return {name: flat[part].reshape(shape) for name, part, shape in engine.layout}


def distance(found: Arrays, expected: Arrays) -> float:
    """The norm of the difference over the norm of what is expected."""
    assert found.keys() == expected.keys()
    differences = [np.ravel(found[name] - expected[name]) for name in expected]
    whole = [np.ravel(array) for array in expected.values()]
    return float(np.linalg.norm(np.hstack(differences)) / np.linalg.norm(np.hstack(whole)))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("changes", LOSSES, ids=str)
def test_the_gradient_is_torchs_whatever_the_loss(changes: dict[str, Any], action: str) -> None:
    # given
    case = Case(ACTIONS[action], **changes)
    rows = case.rows()

    # then
    assert distance(case.gradient(rows), case.torch.gradient(rows)) < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "relu"},
        {"hidden_sizes": ()},
        {"hidden_sizes": (1,)},
        {"hidden_sizes": (70, 3, 33)},
        {"hidden_sizes": (70, 3, 33), "activation": "relu"},
        {"unroll_length": 1},
    ],
    ids=str,
)
def test_the_gradient_is_torchs_whatever_the_layers(changes: dict[str, Any]) -> None:
    case = Case(discrete(3), **changes)
    rows = case.rows()
    assert distance(case.gradient(rows), case.torch.gradient(rows)) < 1e-6


@pytest.mark.parametrize("tanh", [activations.TANH, activations.TANH_BY_EXP], ids=["", "by exp"])
def test_the_gradient_is_torchs_however_tanh_is_computed(
    tanh: activations.Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "activation_of", lambda name: tanh)
    case = Case(discrete(3))
    rows = case.rows()
    assert distance(case.gradient(rows), case.torch.gradient(rows)) < 1e-6


@pytest.mark.parametrize("observation", [PIXELS, INDEX, PARTS], ids=["pixels", "index", "parts"])
def test_the_gradient_is_torchs_whatever_is_observed(observation: ObservationSpec) -> None:
    case = Case(observation=observation)
    rows = case.rows()
    # Sums over thousands of features, of which bytes come as they are, are less exact in float32.
    bound = 1e-6 if observation.num_features < 100 else 1e-5
    assert distance(case.gradient(rows), case.torch.gradient(rows)) < bound


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "learning_rate": 1e-3},
        {"optimizer": "rmsprop", "rmsprop_momentum": 0.9, "learning_rate": 1e-3},
        {"optimizer": "adam", "grad_norm_clipping": 0.5, "reduction": "mean"},
    ],
    ids=str,
)
def test_three_updates_leave_the_parameters_and_the_state_of_torch(
    changes: dict[str, Any], action: str
) -> None:
    # given
    case = Case(ACTIONS[action], **changes)

    # when
    for seed in range(3):
        rows = case.rows(seed=seed)
        norm = case.torch.step(rows)
        step = case.numpy.step(rows, case.rates)
        assert step.taken
        assert step.figures["grad_norm"] == pytest.approx(norm, rel=1e-5)

    # then
    assert distance(weights_of(case.numpy), case.torch.weights()) < 1e-6
    assert distance(dict(case.numpy.slots()), case.torch.slots()) < 1e-5
    assert case.numpy.steps == case.torch.optimizer.steps == 3


def test_two_hundred_updates_differ_by_what_rounding_explains() -> None:
    # given a third run, whose first parameters differ by their last digit
    case = Case(optimizer="adam", learning_rate=1e-3, reduction="mean")
    rounded = {name: w * np.float32(1 + 2e-7) for name, w in case.torch.weights().items()}
    other = TorchUpdates(case.spec, case.config, rounded)

    # when
    batches = [case.rows(seed=seed) for seed in range(7)]
    for number in range(200):
        rows = batches[number % 7]
        case.torch.step(rows)
        other.step(rows)
        case.numpy.step(rows, case.rates)

    # then
    explained = distance(other.weights(), case.torch.weights())
    assert distance(weights_of(case.numpy), case.torch.weights()) < 3 * explained < 1e-3


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("changes", [{}, LOSSES[4], LOSSES[-1]], ids=str)
def test_the_figures_are_those_of_torch(changes: dict[str, Any], action: str) -> None:
    # given
    case = Case(ACTIONS[action], **changes)
    rows = case.rows()
    losses, figures = case.torch.loss(rows)
    expected = {f"{name}_loss": loss.item() for name, loss in losses._asdict().items()}
    expected["entropy"] = expected.pop("entropy_loss")
    others = figures._asdict()
    shares = others.pop("pi_mean")
    expected |= {name: value.item() for name, value in others.items() if value is not None}
    if shares is not None:
        expected |= {f"pi_mean_{a}": share for a, share in enumerate(shares.tolist())}

    # when
    step = case.numpy.step(rows, case.rates)

    # then
    del step.figures["grad_norm"]
    assert step.figures == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert list(step.stages_s) == ["transfer_s", "forward_s", "backward_s", "optimizer_s"]
    assert all(seconds >= 0 for seconds in step.stages_s.values())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("columns", [1, 2, 11])
@pytest.mark.parametrize("normalized", [False, True], ids=["", "normalised advantages"])
def test_pieces_and_threads_change_nothing_but_the_order_of_the_sum(
    threads: int, columns: int, normalized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    case = Case(threads=threads, normalize_advantages=normalized)
    whole = Case(normalize_advantages=normalized)
    rows = case.rows(columns)
    expected = whole.numpy.step(rows, case.rates).figures

    # when pieces have two columns at most
    two_columns = 2 * numpy_worker.bytes_of_a_column(case.spec)
    monkeypatch.setattr(numpy_worker, "PIECE_BYTES", two_columns)
    monkeypatch.setattr(numpy_worker, "LEAST_ROWS", 0)
    found = case.numpy.step(rows, case.rates).figures

    # then
    assert distance(weights_of(case.numpy), weights_of(whole.numpy)) < 1e-6
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("hidden_sizes", "columns", "workers", "expected"),
    [
        ((64, 64), 32, 1, [32]),
        ((64, 64), 32, 3, [10, 11, 11]),
        ((64, 64), 1024, 1, [128] * 8),
        ((64, 64), 1, 4, [1]),
        ((512,), 256, 1, [85, 85, 86]),
    ],
)
def test_pieces_are_few_and_nearly_of_one_size(
    hidden_sizes: tuple[int, ...], columns: int, workers: int, expected: list[int]
) -> None:
    # given
    config = config_of(hidden_sizes=hidden_sizes, unroll_length=20)
    spec = spec_of(config, observation=ObservationSpec((4,), "float32"))

    # when
    pieces = numpy_worker.pieces_of(spec, columns, workers)

    # then
    assert [piece.stop - piece.start for piece in pieces] == expected
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]


def test_no_thread_is_started_that_would_have_no_column() -> None:
    case = Case(threads=100, batch_size=3)
    assert len(case.numpy._workers) == 3
    assert case.numpy.step(case.rows(3), case.rates).taken


def test_the_same_batches_give_the_same_bits_on_several_threads() -> None:
    # given
    found = []
    for _ in range(2):
        case = Case(threads=3)

        # when
        for seed in range(5):
            case.numpy.step(case.rows(columns=20, seed=seed), case.rates)
        found.append(case.numpy.flat())

    # then
    assert np.array_equal(*found)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("changes", [{}, LOSSES[-1]], ids=str)
def test_what_stands_in_fake_rows_changes_nothing(changes: dict[str, Any], action: str) -> None:
    # given the same rows twice, with other numbers in the fake ones of the second
    case, other = Case(ACTIONS[action], **changes), Case(ACTIONS[action], **changes)
    rows, spoilt = case.rows(), case.rows()
    fake = ~rows.mask
    for array in (spoilt.rewards, spoilt.behaviour_log_probs):
        array[fake] = np.resize([np.nan, np.inf, -1e30], fake.sum())
    spoilt.actions[fake] = 1e30 if spoilt.actions.dtype == np.float32 else 99

    # when
    steps = [one.numpy.step(some, case.rates) for one, some in ((case, rows), (other, spoilt))]

    # then
    assert np.array_equal(case.numpy.flat(), other.numpy.flat())
    assert steps[0].figures == steps[1].figures


def test_a_batch_of_fake_rows_alone_leaves_the_parameters_nearly_alone() -> None:
    # given
    case = Case()
    rows = case.rows()
    rows.mask[...] = False
    before = case.numpy.flat()

    # when
    step = case.numpy.step(rows, case.rates)

    # then there is a step, of no size, as in torch
    assert step.taken
    assert step.figures["grad_norm"] == case.torch.step(rows) == 0.0
    assert np.array_equal(case.numpy.flat(), before)


@pytest.mark.parametrize("action", ["one choice", "bounded numbers"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("name", ["rewards", "observations"])
def test_a_step_that_would_not_be_finite_leaves_everything_as_it_was(
    name: str, value: float, action: str
) -> None:
    # given some good steps
    case = Case(ACTIONS[action], threads=2, activation="relu")
    case.numpy.step(case.rows(seed=1), case.rates)
    flat, slots = case.numpy.flat(), case.numpy.slots()

    # when
    rows = case.rows()
    rows.mask[...] = True
    getattr(rows, name)[2, 1] = value
    assert not case.numpy.allows_step(rows, case.rates)
    step = case.numpy.step(rows, case.rates)

    # then
    assert not step.taken
    assert not math.isfinite(step.figures["grad_norm"])
    assert np.array_equal(case.numpy.flat(), flat)
    assert all(np.array_equal(slot, slots[name]) for name, slot in case.numpy.slots().items())
    assert case.numpy.steps == 1

    # and the next good one is taken, of the other columns too
    others = Trajectory._make([array[:, [0, 2, 3, 4]] for array in rows])
    assert case.numpy.step(others, case.rates).taken


def test_a_gradient_that_is_nearly_infinite_allows_no_step() -> None:
    case = Case(activation="relu")
    rows = case.rows()
    assert case.numpy.allows_step(rows, case.rates)
    rows.rewards[...] = 1e17
    assert not case.numpy.allows_step(rows, case.rates)


def test_what_looks_for_unfit_columns_changes_nothing() -> None:
    # given
    case = Case(optimizer="adam")
    case.numpy.step(case.rows(), case.rates)
    before, slots = case.numpy.flat(), case.numpy.slots()

    # when
    assert case.numpy.allows_step(case.rows(seed=2), case.rates)

    # then
    assert np.array_equal(case.numpy.flat(), before)
    assert all(np.array_equal(slot, slots[name]) for name, slot in case.numpy.slots().items())
    assert case.numpy.steps == 1


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_an_engine_goes_on_from_what_another_has_reached(optimizer: str) -> None:
    # given
    case, other = Case(optimizer=optimizer), Case(optimizer=optimizer)
    for seed in range(3):
        case.numpy.step(case.rows(seed=seed), case.rates)

    # when
    weights = weights_of(case.numpy)
    other.numpy.load(weights, weights, case.numpy.slots(), case.numpy.steps)
    for one in (case, other):
        one.numpy.step(case.rows(seed=3), case.rates)

    # then
    assert np.array_equal(case.numpy.flat(), other.numpy.flat())
    assert other.numpy.steps == 4


def test_the_parameters_lie_as_in_torchs_vector() -> None:
    case = Case(ACTIONS["numbers"])
    parts = case.torch.optimizer.parts
    assert [(name, part) for name, part, _ in case.numpy.layout] == list(parts.items())
    assert np.array_equal(case.numpy.flat(), case.torch.optimizer.flat.numpy())
    assert list(case.numpy.slots()) == list(case.torch.slots())


def test_deviations_are_brought_back_into_their_range() -> None:
    # given deviations at their upper end, which an update moves up
    case = Case(ACTIONS["numbers"], entropy_cost=100.0)
    weights = weights_of(case.numpy)
    weights["log_std"][:] = LOG_STD_MOST
    case.numpy.load(weights, weights, case.numpy.slots(), 0)

    # when
    case.numpy.step(case.rows(), case.rates)

    # then
    assert np.array_equal(weights_of(case.numpy)["log_std"], np.full(3, LOG_STD_MOST, np.float32))
