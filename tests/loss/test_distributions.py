"""What the learner computes of policies against torch's distributions, and against the actors'."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal

from impala_redis.common.acting.sampling import sample
from impala_redis.common.loss.distributions import evaluate_actions
from impala_redis.common.run.spaces import ActionSpec, discrete

T, B = 5, 7

ACTIONS = [
    discrete(6),
    discrete(1),
    ActionSpec("multi_discrete", (3, 1, 5)),
    ActionSpec("continuous", (3,)),
]


def drawn(action: ActionSpec, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [T, B, P] of some policies, what the actors' code draws of them, its log-probs."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(0.0, 1.5, (T * B, action.num_outputs)).astype(np.float32)
    actions, log_probs = sample(action, outputs.copy(), rng)
    shaped = torch.from_numpy(actions).reshape(T, B, *action.shape)
    return torch.from_numpy(outputs).reshape(T, B, -1), shaped, torch.from_numpy(log_probs)


def reference(action: ActionSpec, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [T, B] by torch.distributions."""
    if action.kind == "continuous":
        means, log_stds = outputs.chunk(2, -1)
        gaussians = Independent(Normal(means, log_stds.exp()), 1)
        return gaussians.log_prob(actions), gaussians.entropy()
    each = [Categorical(logits=logits) for logits in outputs.split(action.sizes, -1)]
    chosen = [actions] if action.kind == "discrete" else actions.unbind(-1)
    log_probs = [one.log_prob(choice) for one, choice in zip(each, chosen, strict=True)]
    return torch.stack(log_probs).sum(0), torch.stack([one.entropy() for one in each]).sum(0)


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_log_probabilities_and_entropies_are_those_of_torchs_distributions(
    action: ActionSpec,
) -> None:
    # given
    outputs, actions, _ = drawn(action, seed=1)

    # when
    found = evaluate_actions(action, outputs.double(), actions)

    # then
    log_probs, entropies = reference(action, outputs.double(), actions)
    torch.testing.assert_close(found.log_probs, log_probs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.entropies, entropies, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_the_learner_gives_actions_the_log_probabilities_that_the_actor_gave_them(
    action: ActionSpec,
) -> None:
    # given
    outputs, actions, behaviour_log_probs = drawn(action, seed=2)

    # when
    found = evaluate_actions(action, outputs, actions).log_probs.reshape(-1)

    # then
    torch.testing.assert_close(found, behaviour_log_probs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_the_gradients_are_those_of_the_definition(action: ActionSpec) -> None:
    # given
    outputs, actions, _ = drawn(action, seed=3)
    outputs = outputs[:2, :2].double().requires_grad_()

    # when / then
    def of_interest(outputs: Tensor) -> tuple[Tensor, Tensor]:
        return evaluate_actions(action, outputs, actions[:2, :2])[:2]

    assert torch.autograd.gradcheck(of_interest, [outputs])


def test_what_figures_need_comes_with_it() -> None:
    # given
    one_choice, several, numbers = (drawn(ACTIONS[index], seed=4) for index in (0, 2, 3))

    # when
    of_one = evaluate_actions(ACTIONS[0], *one_choice[:2])
    of_several = evaluate_actions(ACTIONS[2], *several[:2])
    of_numbers = evaluate_actions(ACTIONS[3], *numbers[:2])

    # then
    assert of_one.probabilities is not None and of_one.stds is None
    torch.testing.assert_close(of_one.probabilities, one_choice[0].softmax(-1))
    assert (of_several.probabilities, of_several.stds) == (None, None)
    assert of_numbers.probabilities is None and of_numbers.stds is not None
    torch.testing.assert_close(of_numbers.stds, numbers[0][..., 3:].exp())


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.kind)
def test_outputs_that_are_no_numbers_give_an_action_that_the_learner_leaves_out(
    action: ActionSpec,
) -> None:
    # given the outputs of three environments, the second of which are not finite
    outputs = np.zeros((3, action.num_outputs), np.float32)
    outputs[1] = np.nan

    # when
    actions, log_probs = sample(action, outputs, np.random.default_rng(0))

    # then its action is one that the environment can take
    assert np.isfinite(actions).all()
    assert (actions[1] == 0).all()
    assert np.isfinite(log_probs).tolist() == [True, False, True]
