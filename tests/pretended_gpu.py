"""Becomes impala-learner with the engine of a GPU, on a CPU: updates end late, as a graph.

pretended_gpu.py [the learner's own options]
"""

import torch
from recorded import recorded

from impala_redis.common.learning.gpu_engine import GpuEngine
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from impala_redis.workers import learner


def pretended(wanted: str, device: str, threads: int, spec: RunSpec, config: Config) -> GpuEngine:
    """In place of `make_engine`."""
    torch.set_num_threads(threads)
    return GpuEngine(spec, config, torch.device("cpu"), recorded)


if __name__ == "__main__":
    learner.make_engine = pretended  # type: ignore[assignment]
    learner.main(prog_name="impala-learner")
