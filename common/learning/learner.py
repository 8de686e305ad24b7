"""The state of training (network, optimizer, counters) and one update. No input or output.

The loss is in `common.loss.impala`, the network in `common.networks.network`, the step in
`common.learning.optimizers`.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.blocks.weights import VersionedWeights, Weights
from impala_redis.common.errors import CheckpointError, NotFinite
from impala_redis.common.learning.batch import Batch, Inputs, Part, one_plain_column, only
from impala_redis.common.learning.device import Stages, enough_memory
from impala_redis.common.learning.optimizers import Optimizer, scheduled
from impala_redis.common.loss.impala import Figures, Losses, impala_loss
from impala_redis.common.networks.network import NetworkOutput, make_network
from impala_redis.common.records.checkpoint import Checkpoint, Tensors
from impala_redis.common.records.lines import number_or_nan
from impala_redis.common.records.window import EpisodeWindow
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec

# Up to this many actions, a record has the mean probability of each.
MOST_ACTIONS = 8


# Tries at most to find the blocks that allow a finite step, and the norm up to which a gradient
# counts as one: float32 has room for the square of a thousand such norms.
MOST_TRIES, MOST_NORM = 32, 1e15
# Where columns come from that no actor has just sent.
REPLAYED = ("", -1)


class Learner:
    """The state of training, from the first update to the last, across resumes."""

    @enough_memory()
    def __init__(self, spec: RunSpec, config: Config, device: torch.device) -> None:
        """A fresh network on the device. Raises DeviceFull."""
        torch.manual_seed(config.training.seed)
        # "float32" means it: cuDNN would round the factors of convolutions to ten bits. For the
        # whole process, since the gradients are computed on a thread of torch's own.
        torch.backends.cudnn.allow_tf32 = False
        self.device = device
        self.network = make_network(spec, config.training.seed).to(device)
        self._config, self._action = config, spec.action
        self._parameters = dict(self.network.named_parameters())
        self._optimizer = Optimizer(
            self._parameters.items(), config.optimizer, branch_free=device.type != "cpu"
        )
        # Each parameter's name, its part of the optimizer's vector, and its shape.
        self._layout = [
            (name, self._optimizer.parts[name], tuple(p.shape))
            for name, p in self._parameters.items()
        ]
        self.window = EpisodeWindow()
        self.version = 0  # of the weights: grows by one with every update, never goes back
        self.updates = 0
        self.frames = 0  # environment steps trained on
        self.skipped = 0  # updates whose loss or gradients were not finite, since the start
        self.faults_in_a_row = 0  # those that were the network's fault
        self._at_fault = False
        self.device_s = 0.0  # in which the device had an update to compute, since the start

    @enough_memory()
    def update(self, batch: Batch) -> dict[str, float]:
        """Takes one step on a batch; returns its figures by name, stages in seconds.

        If no finite step can be made of all columns, it is made of the blocks that allow one, and
        the batch then knows which it left out. A GPU is waited for once, when the figures are
        fetched: then it is done with the batch. Raises DeviceFull.
        """
        stages = Stages(self.device)
        inputs = batch.on(self.device)
        stages.end("transfer_s")
        numbers, stepped = self._step(inputs, stages)
        stages_s = stages.seconds()
        if not stepped and (fit := self._leave_out_unfit(batch, inputs)):
            columns = torch.cat([torch.arange(p.start, p.stop) for p in fit])
            numbers, stepped = self._step(only(inputs, columns), Stages(self.device))
        self.device_s += sum(stages_s.values())
        self._count(batch, stepped)
        return numbers | stages_s

    def _step(self, inputs: Inputs, stages: Stages) -> tuple[dict[str, float], bool]:
        """Tries a step; the figures, and whether there was one."""
        losses, figures = self._loss(inputs)
        stages.end("forward_s")
        losses.total.backward()  # type: ignore[no-untyped-call]
        stages.end("backward_s")
        optimizer = self._config.optimizer
        learning_rate = self._scheduled(optimizer.learning_rate, optimizer.learning_rate_schedule)
        grad_norm = self._optimizer.step(learning_rate)
        self.network.confine()
        stages.end("optimizer_s")
        numbers = _as_numbers(losses, figures, grad_norm)
        numbers["learning_rate"] = learning_rate
        return numbers, self._optimizer.count(numbers["grad_norm"])

    def _loss(self, inputs: Inputs) -> tuple[Losses, Figures]:
        network_input, loss_input = inputs
        config = self._config
        with self._precision():
            output: NetworkOutput = self.network(network_input)  # [T+1, B, ...]
        entropy_cost = self._scheduled(config.loss.entropy_cost, config.loss.entropy_schedule)
        return impala_loss(
            self._action, output.policy[:-1], output.baseline, loss_input, config.loss, entropy_cost
        )

    def _leave_out_unfit(self, batch: Batch, inputs: Inputs) -> list[slice]:
        """The columns that allow a finite step; the batch leaves the others out.

        Without any, the network is at fault if a plain column allows none either. Whatever blocks
        say else could be the work of a stranger.
        """
        replayed = [Part(REPLAYED, slice(0, batch.replayed))] if batch.replayed else []
        fit = self._fit_parts(inputs, [*replayed, *batch.parts])
        batch.leave_out([part for part in batch.parts if part not in fit])
        self._at_fault = not fit and not self._allows_step(one_plain_column(inputs))
        return [part.columns for part in fit]

    def _fit_parts(self, inputs: Inputs, parts: list[Part]) -> list[Part]:
        """The parts of which a finite step can be made, together, too: looked for by halves.

        What it would take too long to find is left out with the others.
        """
        fit, unknown = list[Part](), [parts] if parts else []
        for _ in range(MOST_TRIES):
            if not unknown:
                break
            some = unknown.pop()
            columns = torch.cat([torch.arange(p.columns.start, p.columns.stop) for p in some])
            if self._allows_step(only(inputs, columns)):
                fit += some
            elif len(some) > 1:
                half = len(some) // 2
                unknown += [some[half:], some[:half]]
        return fit

    def _allows_step(self, inputs: Inputs) -> bool:
        """Whether the gradient of such columns is finite, and far from not being so."""
        gradients = torch.autograd.grad(self._loss(inputs)[0].total, [*self._parameters.values()])
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        return bool(torch.linalg.vector_norm(norms).item() <= MOST_NORM)

    def totals(self) -> dict[str, float]:
        """Sums since the start, from whose growth figures are made."""
        return {"frames": self.frames, "updates": self.updates, "device_s": self.device_s}

    def weights(self) -> Weights:
        """A copy of the network's parameters on the host, to publish or save.

        Raises NotFinite: such weights must reach neither actors nor a checkpoint.
        """
        flat = self._optimizer.flat.to("cpu", copy=True).numpy()
        weights = {name: flat[part].reshape(shape) for name, part, shape in self._layout}
        if not np.isfinite(flat).all():  # in numpy: torch takes up to twenty times as long
            names = (name for name, array in weights.items() if not np.isfinite(array).all())
            raise NotFinite(
                f"the network's {next(names)} is not finite any more; lower --learning-rate, then "
                "go on from the last checkpoint with --resume"
            )
        return weights

    def versioned_weights(self) -> VersionedWeights:
        """The same with their version, to publish. Raises NotFinite."""
        return VersionedWeights(self.version, self.weights())

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Everything a resume needs, as tensors and facts."""
        tensors: Tensors = {f"model.{name}": value for name, value in self.weights().items()}
        for name, tensor in self._optimizer.state().items():
            tensors[f"optimizer.{name}"] = _array(tensor).copy()
        tensors["rng.torch"] = torch.get_rng_state().numpy()
        facts = {
            "version": self.version,
            "updates": self.updates,
            "frames": self.frames,
            "episodes": self.window.episodes,
            "returns": list(self.window.returns),  # those of the mean; none while it is unknown
            "optimizer_steps": self._optimizer.steps,
        }
        return tensors, facts

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on exactly where the checkpoint was made. Raises CheckpointError if it cannot."""
        own = {f"model.{name}": p.data for name, p in self._parameters.items()}
        own |= {f"optimizer.{name}": t for name, t in self._optimizer.state().items()}
        for name, tensor in own.items():
            saved = checkpoint.tensors.get(name)
            if saved is None or saved.shape != tuple(tensor.shape) or saved.dtype != np.float32:
                raise CheckpointError(
                    f"{checkpoint.path} does not fit this network and optimizer: {name} is "
                    f"{'missing' if saved is None else f'{saved.dtype}{list(saved.shape)}'}"
                )
            if np.isnan(saved).any():  # the next update would make the weights so
                raise CheckpointError(f"{checkpoint.path} is damaged: {name} is not a number")
            tensor.copy_(torch.from_numpy(saved.copy()))
        facts = checkpoint.facts
        try:
            torch.set_rng_state(torch.from_numpy(checkpoint.tensors["rng.torch"].copy()))
            self.version, self.updates = facts["version"], facts["updates"]
            self.frames, self._optimizer.steps = facts["frames"], facts["optimizer_steps"]
            returns = [number_or_nan(one) for one in facts["returns"]]
            if np.isnan(returns).any():
                raise ValueError("returns")
            self.window = EpisodeWindow(returns, facts["episodes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint.path} lacks or garbles {error}") from error

    def _precision(self) -> AbstractContextManager[None]:
        """Lets the network compute products as precisely as the settings say."""
        if self._config.training.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _scheduled(self, value: float, schedule: str) -> float:
        return scheduled(value, schedule, self.frames, self._config.training.total_frames)

    def _count(self, batch: Batch, stepped: bool) -> None:
        self.skipped += not stepped
        self.faults_in_a_row = 0 if stepped else self.faults_in_a_row + self._at_fault
        self.version += 1
        self.updates += 1
        self.frames += batch.frames
        self.window.add(batch.blocks, time.monotonic())


def _as_numbers(losses: Losses, figures: Figures, grad_norm: Tensor) -> dict[str, float]:
    """Losses, figures and norm as numbers by name, in one transfer from the device."""
    several = figures._asdict()
    shares: Tensor | None = several.pop("pi_mean")
    scalars = {
        "total_loss": losses.total.detach(),
        "policy_loss": losses.policy,
        "baseline_loss": losses.baseline,
        "entropy": losses.entropy,
        "grad_norm": grad_norm,
        **{name: value for name, value in several.items() if value is not None},
    }
    if shares is not None and len(shares) <= MOST_ACTIONS:
        scalars |= {f"pi_mean_{a}": share for a, share in enumerate(shares)}
    return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.cpu().numpy(), np.float32)
