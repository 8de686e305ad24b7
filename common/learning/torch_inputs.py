"""The rows of a batch as tensors on a device: the inputs of the network and of the loss."""

import torch
from torch import Tensor

from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.loss.impala import LossInput
from impala_redis.common.networks.network import NetworkInput

Inputs = tuple[NetworkInput, LossInput]
Tensors = dict[str, Tensor]


def moved(rows: Trajectory, device: torch.device) -> Tensors:
    """The rows on the device, by name; on a CPU they share the memory of the arrays."""
    tensors = {name: torch.from_numpy(array) for name, array in rows._asdict().items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


def inputs_of(tensors: Tensors, branch_free: bool = False) -> Inputs:
    """What the network and the loss are told of moved rows.

    With `branch_free` no number is looked at, as a GPU needs it; on a CPU that is slower.
    """
    actions = tensors["actions"]
    loss_input = LossInput(
        actions=actions if actions.is_floating_point() else actions.long(),
        rewards=tensors["rewards"],
        discounts=tensors["discounts"],
        behaviour_log_probs=tensors["behaviour_log_probs"],
        mask=tensors["mask"],
        tasks=_tasks_of(tensors["tasks"]),
    )
    network_input = NetworkInput(
        observations=stacked(tensors["observations"], tensors["is_first"], branch_free),
        is_first=tensors["is_first"],
        actions=loss_input.actions,
        rewards=loss_input.rewards,
        memory=tensors["memory"][0],
    )
    return network_input, loss_input


def _tasks_of(tasks: Tensor) -> Tensor:
    """The task of each column [B] int64; what travels [1, B, K] is empty where there is one."""
    columns = tasks[0]
    if not columns.shape[1]:
        return columns.new_zeros(len(columns), dtype=torch.int64)
    return columns[:, 0].long()


def stacked(observations: Tensor, is_first: Tensor, branch_free: bool = False) -> Tensor:
    """Observations [H+R, B, ...] as the network takes them in R rows: [R, B, S, ...] if H is not 0.

    S is H+1, the frames of a stack; `common.acting.frames` has the rule of the stacks.
    """
    history = len(observations) - len(is_first)
    if history == 0:
        return observations
    device, rows = is_first.device, len(is_first)
    numbers = torch.arange(rows, device=device)[:, None]  # [R, 1]
    begun = torch.where(is_first, numbers, -history).cummax(0).values  # [R, B]
    wanted = numbers + torch.arange(-history, 1, device=device)  # [R, S]
    missing = wanted[:, None] < begun[..., None]  # [R, B, S]
    planes = [observations[first : first + rows] for first in range(history + 1)]
    # In memory a pixel's frames lie side by side: convolutions then take half the time.
    stacks = torch.stack(planes, -1).movedim(-1, 2)
    if not branch_free:
        stacks[missing.nonzero(as_tuple=True)] = 0  # a mask would be written out in full
        return stacks
    # A pass over the whole array, but one that does not wait to know what is missing.
    return stacks.masked_fill_(missing.view(*missing.shape, *[1] * (stacks.dim() - 3)), 0)
