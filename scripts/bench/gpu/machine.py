"""What the kit measures on: the first of its parts, which asks torch."""

import os
import platform
import shutil
import subprocess
import time

import numpy as np
import torch

from bench.gpu import plan
from bench.gpu.plan import Plan

QUERY = "driver_version,power.limit,clocks.max.sm,clocks.max.mem"


def machine(given: Plan) -> None:
    """Tells of the card, the cores, and the versions."""
    found = {
        "card": "cpu",
        "cores": given.cores,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.release()}",
        "load": os.getloadavg()[0],
    }
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        found |= {
            "card": about.name,
            "memory_bytes": about.total_memory,
            "multiprocessors": about.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _asked_of_driver(),
        }
    given.add(found)


def _asked_of_driver() -> str:
    if not (program := shutil.which("nvidia-smi")):
        return "unknown"
    command = [program, f"--query-gpu={QUERY}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=20)
    return f"{QUERY}: {done.stdout.strip()}"


if __name__ == "__main__":
    plan.run(machine)
