"""The buffers of a network of the user's own that travel: a forward pass changes them.

Here they stay the same tensors, whatever the user's module does, as a recorded update needs them,
and are put back where a step was not taken.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from impala_redis.common.run.architecture import OWN_PREFIX, NetworkSpec


class OwnBuffers:
    """The travelling buffers of one network; there are none in the built-in ones."""

    def __init__(self, network: nn.Module, spec: NetworkSpec) -> None:
        names = [name for name in spec.statistic_shapes() if name.startswith(OWN_PREFIX)]
        places = [name.rpartition(".") for name in names]
        self._places = [(network.get_submodule(owner), key) for owner, _, key in places]
        self._tensors = dict(zip(names, self._found(), strict=True))

    def copies(self) -> list[Tensor]:
        """What they hold now; `put_back` takes it."""
        return [tensor.clone() for tensor in self._tensors.values()]

    @torch.no_grad()
    def settle(self) -> None:
        """Takes what a module has put in a buffer's place into the buffer, after an update."""
        tensors = self._tensors.values()
        for (owner, key), tensor, found in zip(self._places, tensors, self._found(), strict=True):
            if found is not tensor:
                tensor.copy_(found)
                owner._buffers[key] = tensor

    @torch.no_grad()
    def put_back(self, before: list[Tensor], unless: Tensor | None = None) -> None:
        """Takes back what a pass has changed, unless that scalar is true; nobody looks at it."""
        for (owner, key), tensor, old in zip(
            self._places, self._tensors.values(), before, strict=True
        ):
            owner._buffers[key] = tensor
            tensor.copy_(old if unless is None else torch.where(unless, tensor, old))

    @torch.no_grad()
    def write_changes(self, before: list[Tensor], out: Tensor) -> None:
        """Writes by how much each number differs from that in these copies, to a float32 vector."""
        pairs = zip(self._tensors.values(), before, strict=True)
        changes = [(now.float() - old.float()).view(-1) for now, old in pairs]
        if changes:
            torch.cat(changes, out=out)

    @torch.no_grad()
    def change(self, before: list[Tensor], changes: Tensor) -> None:
        """Makes the buffers what these copies are, plus such changes; whole numbers stay whole."""
        start = 0
        for tensor, old in zip(self._tensors.values(), before, strict=True):
            stop = start + tensor.numel()
            change = changes[start:stop].view(tensor.shape)
            tensor.copy_(old + (change if tensor.is_floating_point() else change.round().long()))
            start = stop

    def zero_if_finite(self) -> Tensor | float:
        """A scalar 0; not a number where a pass has brought an infinity into a buffer."""
        found = [one.detach() for one in self._found() if one.is_floating_point()]
        return sum((one.float().sum() * 0.0 for one in found), start=0.0)

    def begin_copies(self) -> Callable[[], dict[str, NDArray[np.float32]]]:
        """Copies them as they are; what it returns brings these to the host, on any thread.

        They are float32, by the names in the spec.
        """
        copies = {name: tensor.float().clone() for name, tensor in self._tensors.items()}
        return lambda: {name: copy.cpu().numpy() for name, copy in copies.items()}

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes over what such copies hold; a buffer that is not among them stays as it is."""
        for name, tensor in self._tensors.items():
            if name in arrays:
                tensor.copy_(torch.from_numpy(arrays[name].copy()))

    def reinstate(self) -> None:
        """Puts the buffers back in their places, as they are: what a pass left there is no number.

        So it is after an update that was to be recorded, and was not.
        """
        for (owner, key), tensor in zip(self._places, self._tensors.values(), strict=True):
            owner._buffers[key] = tensor

    def _found(self) -> list[Tensor]:
        """What stands in the buffers' places now."""
        found = [owner._buffers[key] for owner, key in self._places]
        return [tensor for tensor in found if tensor is not None]
