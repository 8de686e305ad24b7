"""What an actor plays with on its machine: environments, their threads, where its network computes.

All else the run says, and it is the same for all of its actors.
"""

from functools import partial
from typing import NamedTuple

from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.envs.trust import check_environment
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.user_code.modules import check_network
from impala_redis.workers import process


class Outfit(NamedTuple):
    """The outfit of one actor."""

    trusted_modules: tuple[str, ...] = ()  # that environments may be made by
    trusted_networks: tuple[str, ...] = ()  # modules that networks may be made by
    device: str = "cpu"  # or "cuda"
    envs: int | None = None  # None: as many as the run says
    env_threads: int | None = None  # None: as many as a vector form takes, in games of Atari 1
    env_processes: int | None = None  # None: as many as the run says; 0: none of their own

    def checked(self) -> "Outfit":
        """The same, for a GPU with a thread for each core if no number is given.

        Raises ConfigError or DeviceFull: the GPU cannot be used.
        """
        if self.device == "cpu":
            return self
        # Late: it imports torch.
        from impala_redis.common.devices.device import choose_device

        choose_device(self.device)
        return self._replace(env_threads=self.env_threads or process.usable_cores())

    def num_envs(self, spec: RunSpec) -> int:
        """How many environments the actor has in that run."""
        return self.envs or spec.envs_per_actor

    def make_environment(self, spec: RunSpec) -> VectorEnvironment:
        """The run's environments. Raises UnsupportedEnvironment, or ConfigError: untrusted."""
        check_environment(spec, self.trusted_modules)
        processes = spec.env_processes if self.env_processes is None else self.env_processes
        environment = VectorEnvironment(
            spec.env,
            self.num_envs(spec),
            frame_stack=spec.observation.frame_stack,
            info_keys=spec.info_keys,
            num_threads=self.env_threads,
            variant=spec.variant,
            num_processes=processes,
        )
        if difference := spec.other_spaces(environment.observation, environment.action):
            environment.close()
            raise UnsupportedEnvironment(
                f"{spec.env} is another one on this machine: {difference}, in the run; install the "
                "learner's version of it"
            )
        return environment

    def make_actor(
        self, spec: RunSpec, name: str, incarnation: int, join: int, share: float = 0.0
    ) -> Actor:
        """An actor of that run, with new environments. Raises as `make_environment`, or DeviceFull.

        The arguments are as for `Actor`.
        """
        check_network(spec.network, self.trusted_networks)
        policy = partial(make_policy, device=self.device)
        environment = self.make_environment(spec)
        return Actor(spec, environment, name, incarnation, join, policy, share)
