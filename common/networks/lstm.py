"""The recurrent core: an LSTM whose state is emptied where an episode begins.

Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LstmCore(nn.Module):
    """One layer of L cells; gates in the order input, forget, cell, output, as in torch."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * size, inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * size, size))
        self.bias = nn.Parameter(torch.zeros(4 * size))
        for gate in range(4):
            nn.init.orthogonal_(self.weight_ih.data[gate * size : (gate + 1) * size])
            nn.init.orthogonal_(self.weight_hh.data[gate * size : (gate + 1) * size])
        # With a forget bias of 1 the core begins by remembering (Jozefowicz et al. 2015).
        self.bias.data[size : 2 * size] = 1.0

    def forward(self, x: Tensor, is_first: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [R, B, L] for inputs [R, B, I], and the state [B, 2L] after them: h, then c.

        `h` and `c` [B, L] are the state before. It is float32, and emptied before each row that
        `is_first` [R, B].
        """
        # The part that does not depend on the state is one product for all rows.
        projected = functional.linear(x, self.weight_ih, self.bias).float()  # [R, B, 4L]
        begins = is_first.unsqueeze(-1)  # [R, B, 1]
        outputs = []
        for inputs, begin in zip(projected.unbind(), begins.unbind(), strict=True):
            # Filled, not multiplied by 0: a NaN of one episode would outlive it.
            h, c = h.masked_fill(begin, 0.0), c.masked_fill(begin, 0.0)
            i, f, g, o = (inputs + functional.linear(h, self.weight_hh)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs), torch.cat([h, c], -1)
