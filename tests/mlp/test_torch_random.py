"""Random numbers as torch draws them, held to torch's own."""

import numpy as np
import pytest
import torch

from impala_redis.common.mlp.torch_random import TorchRandom, rng_state

# The last two differ from smaller ones in bits that torch's generator does not use.
SEEDS = (0, 1, 123_456_789, 2**32 - 1, 2**32 + 1, 2**63 - 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_state_after_a_seed_is_torchs_to_the_byte(seed: int) -> None:
    # given
    generator = torch.Generator().manual_seed(seed)

    # then
    assert np.array_equal(rng_state(seed), generator.get_state().numpy())


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
