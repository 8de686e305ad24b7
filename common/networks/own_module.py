"""A torch module of the user's own as the part of a network before its hidden layers.

The first form is stable-baselines3's features extractor: `Name(observation_space, **config)` with
`features_dim`, whose `forward(observations)` gives [batch, features_dim]. The second has a memory:
`memory_size`, and `forward(observations, memory, is_first)` over rows [T, B, ...]. Whatever goes
wrong in it becomes one sentence, with the place in the user's file.
"""

import contextlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from impala_redis.common.encoding.handed import Handed, handed_over
from impala_redis.common.errors import ConfigError, DeviceFull, SpecMismatch, printable
from impala_redis.common.networks.own_input import OwnInput
from impala_redis.common.networks.torsos import Normalizer
from impala_redis.common.run.architecture import OWN_PREFIX
from impala_redis.common.run.own_network import MAX_WIDTH, OwnNetwork, Tensors
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings import json_object
from impala_redis.common.user_code import failures, parts

# What a GPU says whose memory is full (`common.devices.device` makes a sentence of it).
_FULL = re.compile(r"out of memory|ALLOC_FAILED", re.IGNORECASE)


class OwnTorso:
    """The user's module between an observation and the hidden layers."""

    def __init__(self, spec: RunSpec, normalizer: Normalizer | None = None) -> None:
        """Makes the module that the run names. Raises ConfigError, or SpecMismatch: another one."""
        assert spec.own is not None
        handed = handed_over(spec)
        module = made(spec.network, spec.network_config, handed)
        if (found := outside_of(module, spec.network)) != spec.own:
            raise SpecMismatch(
                f"the network {spec.network} is another one on this machine: {found} here, and "
                f"{spec.own} in the run; install the learner's version of it"
            )
        self._name, self._own = spec.network, spec.own
        self._input = OwnInput(handed, bool(spec.observation.parts), normalizer)
        self._module = module
        # By the names under which their tensors stand in the whole network.
        self.modules: dict[str, nn.Module] = {
            OWN_PREFIX.rstrip("."): module,
            "extractor_input": self._input,
        }

    def __call__(
        self, observations: Tensor, is_first: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features [R * B, F] of rows [R, B, ...], and the memory [B, M] after the last of them."""
        with failing(self._name, "forward"):
            if not self._own.memory_size:
                return self._module(self._input(observations.flatten(0, 1))), memory
            seen = self._input(observations, leading=2)
            features, memory = self._module(seen, memory.clone(), is_first)
        return features.flatten(0, 1), memory.float()


def made(network: str, config: str, handed: Handed) -> nn.Module:
    """The user's module, which is trusted. Raises ConfigError: it cannot be made, or is none."""
    make = parts.imported(network, "network")
    # Before it is called: the run may have named any class of a module that is trusted.
    if inspect.isclass(make) and not issubclass(make, nn.Module):
        raise ConfigError(
            f"the network {printable(network)} is no torch.nn.Module; name the class of a module, "
            "or a function that makes one"
        )
    with failing(network, "its constructor"):
        module = make(handed.space, **json_object.arguments(config))
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"the network {printable(network)} makes a {type(module).__name__}, not a "
            "torch.nn.Module; name the class of a module"
        )
    return module


def outside_of(module: nn.Module, network: str) -> OwnNetwork:
    """What a run's spec says of the module. Raises ConfigError: it lacks or has what will not do.

    The module may be on torch's meta device.
    """
    width = _whole(module, network, "features_dim", least=1)
    remembered = _whole(module, network, "memory_size", least=0, default=0)
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise flaw(network, f"the parameter {name} has no shape yet; make it without Lazy")
        if parameter.dtype != torch.float32:
            raise flaw(
                network, f"the parameter {name} is {_short(parameter)}; make it torch.float32"
            )
    buffers = persistent_buffers(module)
    for name, buffer in buffers.items():
        if buffer.is_complex() or buffer.is_quantized:
            raise flaw(
                network,
                f"the buffer {name} is {_short(buffer)}, which does not travel; register it with "
                "persistent=False",
            )
    try:
        return OwnNetwork(
            features_dim=width,
            memory_size=remembered,
            parameters=_shapes(dict(module.named_parameters())),
            buffers=_shapes(buffers),
        )
    except ValueError as error:
        raise flaw(network, str(error)) from error


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that are saved with a module, by name: those that travel."""
    saved = module.state_dict(keep_vars=True).keys()
    return {name: buffer for name, buffer in module.named_buffers() if name in saved}


@contextlib.contextmanager
def failing(network: str, doing: str) -> Iterator[None]:
    """A block in which the user's module computes. Raises ConfigError with the place in its file.

    What a GPU's memory or a recording complains of stays as it is: others know what to do then.
    """
    try:
        yield
    except (ConfigError, DeviceFull, KeyboardInterrupt, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if _FULL.search(str(error)) or _is_recording():
            raise
        failure = ConfigError(
            f"the network {printable(network)} failed in {doing}: {failures.what(error)}"
            f"{failures.where(error)}"
        )
        failure.frames = failures.frames(error)
        raise failure from error


def flaw(network: str, why: str) -> ConfigError:
    """The refusal of a network, in one sentence."""
    return ConfigError(f"the network {printable(network)} cannot be used: {why}")


def _is_recording() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _whole(
    module: nn.Module, network: str, name: str, least: int, default: int | None = None
) -> int:
    with failing(network, name):
        found: Any = getattr(module, name, default)
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= MAX_WIDTH:
        said = "has no" if found is None else f"has {str(found)[:40]} as its"
        raise flaw(
            network,
            f"it {said} {name}; set self.{name} to a whole number, {least} to {MAX_WIDTH:,}, in "
            "its constructor",
        )
    return found


def _shapes(tensors: dict[str, Tensor]) -> Tensors:
    """Names and shapes. Raises ValueError: some cannot travel."""
    for name, tensor in tensors.items():
        if not tensor.numel() or tensor.dim() > 8 or len(name) > 256:
            raise ValueError(f"the tensor {name[:60]} is empty, or has more than 8 dimensions")
    return tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
