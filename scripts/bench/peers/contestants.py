"""The contestants: their versions, how each is installed, and the driver that runs it.

Every version stands here and nowhere else. Each peer has a virtual environment of its own, because
they do not agree on one gymnasium and one numpy.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.peers import bounded

DRIVERS = Path(__file__).parent
TORCH = "torch==2.13.0"
# The last ones that still have pkg_resources, which some of the peers import.
BUILD_TOOLS = ("setuptools==80.9.0", "wheel==0.45.1")
PUFFERLIB, CYTHON, NUMPY_1 = "pufferlib==3.0.0", "cython==3.2.4", "numpy==1.26.4"
JAX = ("jax==0.10.2", "jaxlib==0.10.2", "numpy==2.4.6")
INSTALL_LIMIT_S = 1800.0
# Names JAX a folder in which what it has compiled stays.
COMPILED = "JAX_COMPILATION_CACHE_DIR"


class Contestant(NamedTuple):
    """A driver, and what its environment holds; ours has no packages and runs in this one.

    Contestants with one driver have one environment.
    """

    driver: Path
    packages: tuple[str, ...] = ()
    # Called before the packages are installed, with pip's command, the folder and the log.
    build: Callable[[list[str], Path, Path], None] | None = None
    torch: str | None = TORCH
    # Whether it finds what it has compiled before. Its first run, which only compiles, is no round.
    is_warm: bool = False
    takes_part_in: tuple[str, ...] = ("fps", "solve")

    def place(self, folder: Path) -> Path:
        """Where its virtual environment is, below the folder of all."""
        return folder / self.driver.stem.removeprefix("drive_").replace("_", "-")

    def python(self, folder: Path) -> str:
        """The interpreter that runs the driver."""
        return str(self.place(folder) / "bin" / "python") if self.packages else sys.executable

    def environment(self, folder: Path) -> dict[str, str]:
        """Ours, with the scripts on the path; a peer's interpreter must not find our modules."""
        if not self.packages:
            path = [str(DRIVERS.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
            return os.environ | {"PYTHONPATH": os.pathsep.join(path)}
        hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", COMPILED}
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        return kept | ({COMPILED: str(self.place(folder) / "compiled")} if self.is_warm else {})

    def install(self, folder: Path, log: Path) -> None:
        """Makes the virtual environment, unless it holds these versions. Raises bounded.Failed."""
        first = (self.torch, *BUILD_TOOLS) if self.torch else ()
        wanted, place = " ".join([*first, *self.packages]), self.place(folder)
        stamp = place / ".installed"
        if not self.packages or (stamp.exists() and stamp.read_text() == wanted):
            return
        environment, python = self.environment(folder), self.python(folder)
        make = [sys.executable, "-m", "venv", "--clear", str(place)]
        bounded.run(make, log, INSTALL_LIMIT_S, environment)
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
        if self.torch:
            # It comes first and is then held: another build of it would bring gigabytes.
            constraint = place / "constraint.txt"
            constraint.write_text(f"{self.torch}\n")
            pip += ["--constraint", str(constraint)]
            bounded.run([*pip, *first], log, INSTALL_LIMIT_S, environment)
        if self.build:
            self.build(pip, folder, log)
        bounded.run([*pip, *self.packages], log, INSTALL_LIMIT_S, environment)
        stamp.write_text(wanted)


def build_pufferlib(pip: list[str], folder: Path, log: Path) -> None:
    """Builds PufferLib without its C environments, which would download raylib.

    Without them its setup.py uses a name that it has not defined, so it is defined for it; and it
    would build for CUDA where it finds a compiler for that, but torch may be a build without.
    """
    pufferlib = CONTESTANTS["pufferlib"]
    environment = pufferlib.environment(folder)
    bounded.run([*pip, NUMPY_1, CYTHON], log, INSTALL_LIMIT_S, environment)
    names = pufferlib.place(folder) / "names"
    names.mkdir()
    (names / "sitecustomize.py").write_text("import builtins\n\nbuiltins.c_extension_paths = []\n")
    searched = environment["PATH"].split(os.pathsep)
    without_cuda = [place for place in searched if not (Path(place) / "nvcc").exists()]
    environment |= {
        "NO_OCEAN": "1",
        "PATH": os.pathsep.join(without_cuda),
        "PYTHONPATH": str(names),
    }
    build = [*pip, "--no-deps", "--no-build-isolation", PUFFERLIB]
    bounded.run(build, log, INSTALL_LIMIT_S, environment)


CONTESTANTS = {
    "impala-redis": Contestant(DRIVERS / "drive_impala_redis.py"),
    "pufferlib": Contestant(
        DRIVERS / "drive_pufferlib.py",
        (PUFFERLIB, "gymnasium==0.29.1", NUMPY_1, "heavyball==2.2.1"),
        build_pufferlib,
    ),
    "sample-factory": Contestant(
        DRIVERS / "drive_sample_factory.py",
        ("sample-factory==2.1.1", "gymnasium==0.29.1", NUMPY_1),
    ),
    "stable-baselines3": Contestant(
        DRIVERS / "drive_stable_baselines3.py",
        ("stable-baselines3==2.9.2", "gymnasium==1.4.0", "numpy==2.4.6"),
    ),
    # Twice: with all that it compiles, as after a change of its code, and with that at hand.
    "jax-loop": Contestant(DRIVERS / "drive_jax_loop.py", JAX, torch=None),
    "jax-loop-compiled": Contestant(
        DRIVERS / "drive_jax_loop.py", JAX, torch=None, is_warm=True, takes_part_in=("solve",)
    ),
    "rllib": Contestant(
        DRIVERS / "drive_rllib.py", ("ray[rllib]==2.60.0", "gymnasium==1.2.2", "numpy==2.4.6")
    ),
}
