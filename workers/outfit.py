"""What an actor plays with on its machine: environments, their threads, where its network computes.

All else the run says, and it is the same for all of its actors.
"""

from functools import partial
from typing import NamedTuple

from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.envs.mixed import MixedEnvironment
from impala_redis.common.envs.trust import check_environment
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.tasks.dealing import pinned
from impala_redis.common.tasks.listing import numbers_of, told
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
    tasks: tuple[str, ...] = ()  # of the run, that this actor plays; none: all of them

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

    def told(self, spec: RunSpec) -> str:
        """What the actor plays, in words."""
        if not (self.tasks and spec.task_size):
            return told(spec.env, spec.tasks)
        return f"{', '.join(dict.fromkeys(self.tasks))} (of {len(spec.tasks)} tasks)"

    def make_environment(
        self, spec: RunSpec, start: int = 0
    ) -> VectorEnvironment | MixedEnvironment:
        """The run's environments, of several tasks those that are dealt from the place `start` on.

        Raises UnsupportedEnvironment, or ConfigError: untrusted, or no such task.
        """
        check_environment(spec, self.trusted_modules)
        num_envs, pinned_to = self.num_envs(spec), numbers_of(spec.tasks, self.tasks)
        if not spec.task_size:
            return self._environments(spec, 0, num_envs)
        shares = [task.share for task in spec.tasks]
        tasks = pinned(shares, pinned_to or range(len(shares)), start, num_envs)
        return MixedEnvironment(
            [partial(self._environments, spec, number) for number in range(len(shares))], tasks
        )

    def _environments(self, spec: RunSpec, number: int, num_envs: int) -> VectorEnvironment:
        """Environments of the task of that number, with their part of processes and threads."""
        world = spec.worlds[number]
        part = partial(_part, num_envs=num_envs, of=self.num_envs(spec))
        processes = spec.env_processes if self.env_processes is None else self.env_processes
        environment = VectorEnvironment(
            world.env,
            num_envs,
            frame_stack=spec.observation.frame_stack,
            info_keys=spec.info_keys,
            num_threads=None if self.env_threads is None else part(self.env_threads),
            variant=world.variant,
            num_processes=part(processes),
        )
        if difference := spec.other_spaces(environment.observation, environment.action):
            environment.close()
            raise UnsupportedEnvironment(
                f"{world.env} is another one on this machine: {difference}, in the run; install "
                "the learner's version of it"
            )
        return environment

    def make_actor(
        self,
        spec: RunSpec,
        name: str,
        incarnation: int,
        join: int,
        start: int = 0,
        share: float = 0.0,
    ) -> Actor:
        """An actor of that run, with new environments. Raises as `make_environment`, or DeviceFull.

        The arguments are as for `Actor` and `make_environment`.
        """
        check_network(spec.network, self.trusted_networks)
        policy = partial(make_policy, device=self.device)
        environment = self.make_environment(spec, start)
        return Actor(spec, environment, name, incarnation, join, policy, share)


def _part(whole: int, num_envs: int, of: int) -> int:
    """The part of some environments in what all of them have: at least 1 of a whole above 0."""
    return -(-whole * num_envs // of)
