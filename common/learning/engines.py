"""Chooses the engine of a run: numpy for a plain network on a CPU, torch for all else.

torch takes a second to import, so it is imported only here, once it is known to be needed.
"""

from pathlib import Path

from impala_redis.common.errors import ConfigError
from impala_redis.common.learning.engine import Engine
from impala_redis.common.run.config import Config
from impala_redis.common.run.kinds import kind_of
from impala_redis.common.run.spec import RunSpec

# With more parameters a GPU may be worth its launches, so torch is asked whether there is one.
SMALL_PARAMETERS = 100_000
# One of these is there where a GPU can be used: the driver's, or that of a guest of Windows.
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


def make_engine(wanted: str, device: str, threads: int, spec: RunSpec, config: Config) -> Engine:
    """The engine of a run, with a fresh network.

    Args:
      wanted: "auto", "numpy" or "torch".
      device: "auto", "cpu" or "cuda".
      threads: processor threads to compute with.
      spec: the run's.
      config: its settings.

    Raises ConfigError: what is wanted cannot be had; and DeviceFull.
    """
    check_engine(wanted, device, spec, config)
    objection = _objection_to_numpy(device, spec, config)
    if wanted == "numpy" or (wanted == "auto" and not objection and not may_use_gpu(device, spec)):
        from impala_redis.common.learning.numpy_engine import NumpyEngine
        from impala_redis.common.mlp.initial_weights import initial_weights

        weights = initial_weights(spec, config.training.seed, config.model.initial_std)
        return NumpyEngine(spec, config, weights, threads)
    import torch

    from impala_redis.common.devices.device import choose_device

    torch.set_num_threads(threads)
    chosen = choose_device(device)
    if chosen.type == "cpu":
        from impala_redis.common.learning.torch_engine import TorchEngine

        return TorchEngine(spec, config)
    from impala_redis.common.devices.graph import capture_for
    from impala_redis.common.learning.gpu_engine import GpuEngine

    return GpuEngine(spec, config, chosen, capture_for(chosen))


def may_use_gpu(device: str, spec: RunSpec) -> bool:
    """Whether torch is to be asked for a GPU; asking imports it."""
    big = spec.num_parameters > SMALL_PARAMETERS
    return device == "cuda" or (device == "auto" and big and any(map(Path.exists, GPU_FILES)))


def check_engine(wanted: str, device: str, spec: RunSpec, config: Config, ranks: int = 1) -> None:
    """Raises ConfigError where what is wanted cannot compute such a run, and DeviceFull.

    `ranks` is the number of learners that make each update together. A GPU that is asked for is
    looked for, which imports torch.
    """
    objection = _objection_to_numpy(device, spec, config)
    if ranks > 1:
        objection = f"it is for one learner alone, and this group has {ranks}"
    if wanted == "numpy" and objection:
        raise ConfigError(f"--engine numpy cannot be used: {objection}; use --engine auto or torch")
    if device == "cuda":
        from impala_redis.common.devices.device import choose_device

        choose_device(device)


def _objection_to_numpy(device: str, spec: RunSpec, config: Config) -> str:
    """Why numpy cannot compute such a run; empty if it can."""
    if device == "cuda":
        return "it computes on the CPU, and --device cuda asks for a GPU"
    if not kind_of(spec.network).acts_in_numpy or spec.memory_size:
        return "it computes hidden layers alone, and this network has more than those"
    if spec.text != "onehot":
        return f"it takes words one-hot, and --text asks for {spec.text}"
    if spec.observation.frame_stack > 1:
        return "it stacks no frames"
    if spec.num_tasks > 1:
        return f"it computes one baseline, and this run has one for each of {spec.num_tasks} tasks"
    if any(task.reward_scale != 1 for task in spec.tasks):
        return "it scales the rewards of no single task, and a task has a reward_scale"
    if config.loss.popart:
        return "it learns values as they are, without --popart"
    if config.training.precision == "bfloat16":
        return "it computes in float32, and --precision asks for bfloat16"
    return ""
