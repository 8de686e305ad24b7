"""Random numbers as torch draws them, held to torch's own."""

import numpy as np
import pytest
import torch

from impala_redis.common.mlp.torch_random import TorchRandom, is_rng_state, rng_state

# The last two differ from smaller ones in bits that torch's generator does not use.
SEEDS = (0, 1, 123_456_789, 2**32 - 1, 2**32 + 1, 2**63 - 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_state_after_a_seed_is_torchs_to_the_byte(seed: int) -> None:
    # given
    generator = torch.Generator().manual_seed(seed)

    # then
    assert np.array_equal(rng_state(seed), generator.get_state().numpy())


# The counters in a state: each with its first byte, its type, and numbers to put there.
COUNTERS = [(8, "<i4", (-1, 0, 1, 624, 625)), (12, "<i4", (0, 1, 2)), (16, "<u8", (0, 624, 625))]


def test_a_state_is_taken_exactly_where_torch_takes_it() -> None:
    # given
    states = [rng_state(3), np.zeros(5056, np.uint8), np.full(5056, 255, np.uint8)]
    states += [np.zeros(5055, np.uint8), rng_state(3).reshape(2, -1)[0], np.array(7, np.uint8)]
    for start, kind, numbers in COUNTERS:
        for number in numbers:
            state = rng_state(3)
            changed = np.array([number], kind).view(np.uint8)
            state[start : start + len(changed)] = changed
            states.append(state)

    # when
    taken = []
    for state in states:
        try:
            torch.Generator().set_state(torch.from_numpy(state.copy()))
            taken.append(True)
        except RuntimeError:
            taken.append(False)

    # then
    assert [is_rng_state(state) for state in states] == taken
    assert len(set(taken)) == 2


@pytest.mark.parametrize("seed", SEEDS)
# Fewer than 16, whole blocks of 16, and one and 15 more.
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 4096, 4097])
def test_normal_numbers_are_torchs(seed: int, count: int) -> None:
    # given
    generator = torch.Generator().manual_seed(seed)

    # when
    drawn = TorchRandom(seed).normal(count)

    # then
    expected = torch.empty(count).normal_(generator=generator).numpy()
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=2e-6)


def test_numbers_follow_one_another_as_torchs_do() -> None:
    # given
    generator = torch.Generator().manual_seed(3)
    random = TorchRandom(3)

    # The second number of a pair is kept over draws of another kind.
    for count, skipped in ((3, 0), (3, 7), (20, 1), (1, 3_000_000), (5, 0)):
        # when
        random.skip(skipped)
        drawn = random.normal(count)

        # then
        torch.empty(skipped).uniform_(generator=generator)
        expected = torch.empty(count).normal_(generator=generator).numpy()
        np.testing.assert_allclose(drawn, expected, rtol=0, atol=2e-6)
