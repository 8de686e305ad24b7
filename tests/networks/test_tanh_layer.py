"""The tanh layer whose gradient is written out, against torch's own."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from impala_redis.common.networks.tanh_layer import tanh_layer


def inputs(rows: int, narrow: int, wide: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    shapes = ((rows, narrow), (wide, narrow), (wide,))
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize(("narrow", "wide"), [(4, 64), (64, 64), (64, 3), (1, 1)])
@pytest.mark.parametrize("rows", [1, 7, 672])
def test_values_and_gradients_are_those_of_torch(rows: int, narrow: int, wide: int) -> None:
    # given the same inputs, and any gradient from above
    mine, reference = inputs(rows, narrow, wide), inputs(rows, narrow, wide)
    above = torch.randn((rows, wide), generator=torch.Generator().manual_seed(5))

    # when
    y = tanh_layer(*mine)
    y.backward(above)
    expected = functional.linear(*reference).tanh()
    expected.backward(above)

    # then
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(mine, reference, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [0.0, 1e-8, 1e-3, 9.0, 40.0, 1e30])
def test_no_input_is_too_small_or_too_large(size: float) -> None:
    # given a layer that passes its input on
    x = torch.tensor([[size], [-size]])

    # when
    y = tanh_layer(x, torch.ones(1, 1), torch.zeros(1))

    # then it is exact to float32 around one, and never beyond it
    torch.testing.assert_close(y, x.tanh(), rtol=0, atol=2e-7)
    assert y.abs().max() <= 1


def test_an_input_that_wants_no_gradient_gets_none() -> None:
    # given observations, which want none
    x, weight, bias = inputs(5, 4, 8)
    x.requires_grad_(False)

    # when
    tanh_layer(x, weight, bias).sum().backward()

    # then
    assert x.grad is None
    assert weight.grad is not None and weight.grad.shape == weight.shape
