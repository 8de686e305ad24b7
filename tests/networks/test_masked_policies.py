"""Action masks in every policy: what is not allowed is never done, and is no part of the policy."""

from typing import Any

import numpy as np
import pytest
import torch

from impala_redis.common.acting.device_policy import DevicePolicy
from impala_redis.common.acting.numpy_policy import MlpPolicy
from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.policy import Policy
from impala_redis.common.acting.sampling import likeliest, sample
from impala_redis.common.encoding.masks import allowed, mask_bytes, nothing_left, offsets
from impala_redis.common.loss.distributions import evaluate_actions
from impala_redis.common.run.spaces import ActionSpec
from impala_redis.common.run.spec import RunSpec
from masked import ONE_CHOICE, SEVERAL_CHOICES, masked, some_masked_rows
from small_networks import lively_network, make_spec, seen_by

N = 400
ACTIONS = pytest.mark.parametrize(
    "action", [ONE_CHOICE, SEVERAL_CHOICES], ids=["one choice", "several choices"]
)


def policies(spec: RunSpec) -> list[Policy]:
    """Those that may act for a run, each with the weights of one network."""
    found = [make_policy(spec, np.random.default_rng(1))]
    found.append(DevicePolicy(spec, np.random.default_rng(1), torch.device("cpu")))
    weights = {name: p.detach().numpy() for name, p in lively_network(spec).named_parameters()}
    for policy in found:
        policy.load(1, weights)
    return found


def are_allowed(action: ActionSpec, masks: Any, actions: Any) -> Any:
    places = actions.reshape(len(actions), -1) + offsets(action.sizes)
    return np.take_along_axis(masks, places, axis=-1)


@ACTIONS
@pytest.mark.parametrize(
    "changes",
    [{}, {"frame_stack": 3}, {"lstm_size": 4, "extra_inputs": "last_action_reward"}],
    ids=str,
)
def test_no_policy_draws_or_prefers_what_the_newest_mask_forbids(
    action: ActionSpec, changes: dict[str, Any]
) -> None:
    # given three observations after each other, each with a mask of its own
    own = dict(changes)
    observation = masked(own.pop("frame_stack", 1))
    spec = make_spec(observation, action=action, **own)
    rows = some_masked_rows(observation, action, 3, N)
    is_first = np.ones(N, np.bool_)

    for policy in policies(spec):
        policy.begin(N)
        for seen in rows:
            # when
            masks = allowed(observation, seen)
            outputs = policy.outputs(seen, is_first).copy()
            is_first = np.zeros(N, np.bool_)
            preferred = likeliest(action, outputs)
            drawn, log_probs = sample(action, outputs, np.random.default_rng(0))

            # then
            assert are_allowed(action, masks, preferred).all()
            assert are_allowed(action, masks, drawn).all()
            assert np.isfinite(log_probs).all()
            assert (log_probs <= 0).all()


@ACTIONS
def test_the_mask_is_no_input_of_the_network(action: ActionSpec) -> None:
    # given the same numbers under two masks
    spec = make_spec(masked(), action=action)
    rows = some_masked_rows(spec.observation, action, 1, N)
    others = rows.copy()
    mask_bytes(spec.observation, others)[...] = 1
    network = lively_network(spec)

    # when
    with torch.no_grad():
        under_masks, free = (network(seen_by(spec, one)) for one in (rows, others))

    # then the baselines are the same, and the logits of what is allowed
    assert spec.observation.num_features == 3
    assert torch.equal(under_masks.baseline, free.baseline)
    masks = torch.from_numpy(allowed(spec.observation, rows))
    assert torch.equal(under_masks.policy[masks], free.policy[masks])
    assert 0.2 < float(masks.float().mean()) < 0.8


def test_log_probs_and_entropies_are_those_of_the_choices_that_are_left() -> None:
    # given one row in which the second and the fourth of five choices are left
    spec = make_spec(masked(), action=ONE_CHOICE)
    rows = some_masked_rows(spec.observation, ONE_CHOICE, 1, 1)
    mask_bytes(spec.observation, rows)[...] = [0, 200, 0, 1, 0]
    logits = lively_network(spec)(seen_by(spec, rows)).policy
    logits.retain_grad()

    # when
    found = evaluate_actions(spec.action, logits, torch.tensor([[3]]))
    (found.entropies + found.log_probs).sum().backward()

    # then
    left = torch.log_softmax(logits[0, 0, [1, 3]], -1)
    torch.testing.assert_close(found.log_probs[0, 0], left[1])
    torch.testing.assert_close(found.entropies[0, 0], -(left.exp() * left).sum())
    assert logits.grad is not None
    assert (logits.grad[0, 0, [0, 2, 4]] == 0).all()
    assert (logits.grad[0, 0, [1, 3]] != 0).all()


class Largest:
    """Stands in for the generator: every draw is the largest number below 1."""

    def random(self, size: int, dtype: Any) -> Any:
        return np.full(size, np.nextafter(dtype(1), dtype(0)), dtype)


def test_the_largest_draw_takes_no_last_choice_that_is_forbidden() -> None:
    # given policies over 2 to 400 choices, the last of which is forbidden
    for size in range(2, 400):
        logits = np.zeros((1, size), np.float32)
        logits[0, -1] -= 1e30

        # when
        drawn, log_probs = sample(ActionSpec("discrete", (size,)), logits, Largest())  # type: ignore[arg-type]

        # then
        assert drawn.tolist() == [size - 2]
        np.testing.assert_allclose(log_probs, -np.log(size - 1), rtol=1e-5, atol=1e-6)


def test_numpys_policy_acts_as_torchs_network_under_masks() -> None:
    # given
    spec = make_spec(masked(3), action=SEVERAL_CHOICES)
    network = lively_network(spec)
    policy = MlpPolicy(spec, np.random.default_rng(0))
    policy.load(1, {name: p.detach().numpy() for name, p in network.named_parameters()})
    rows = some_masked_rows(spec.observation, spec.action, 3, N)

    # when both see the third observation of an episode
    policy.begin(N)
    for number, seen in enumerate(rows):
        outputs = policy.outputs(seen, np.full(N, number == 0))
    with torch.no_grad():
        expected = network(seen_by(spec, rows, np.zeros((1, N), np.bool_))).policy[0]

    # then
    np.testing.assert_allclose(outputs, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_left_is_counted_choice_by_choice() -> None:
    masks = np.array([[1, 0, 0, 0, 1], [0, 0, 0, 1, 1], [1, 1, 1, 0, 0]], np.bool_)
    assert nothing_left(masks, (3, 2)).tolist() == [[False, False], [True, False], [False, True]]
    assert nothing_left(masks, (5,)).tolist() == [[False]] * 3


@ACTIONS
def test_outputs_that_are_no_numbers_still_play_what_is_allowed(action: ActionSpec) -> None:
    # given observations that are no numbers
    spec = make_spec(masked(), action=action)
    rows = some_masked_rows(spec.observation, action, 1, N)[0]
    for part in spec.observation.leaves:
        if part.dtype == "float32":
            size = part.num_bytes // 4
            rows[:, part.start : part.start + part.num_bytes] = np.full(
                (N, size), np.nan, np.float32
            ).view(np.uint8)
    masks, is_first = allowed(spec.observation, rows), np.ones(N, np.bool_)

    for policy in policies(spec):
        policy.begin(N)
        assert not np.isfinite(policy.outputs(rows, is_first)).all()

        # when
        drawn, log_probs = policy.sample(rows, is_first)
        preferred = policy.greedy(rows, is_first)

        # then the learner leaves them out, and no environment is given what it forbids
        assert np.isnan(log_probs).all()
        assert are_allowed(action, masks, drawn).all()
        assert are_allowed(action, masks, preferred).all()
