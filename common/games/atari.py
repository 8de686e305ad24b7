"""Atari 2600 games, played by ale-py's own vector environment (C++ threads) as in the IMPALA paper.

The protocol (arXiv:1802.01561, Table G.1; where it is silent, what is usual):

    frame          84x84 grey, area-averaged from the maximum of the last two emulator frames;
                   one at a time: our own stacks are built later, so that each travels once
    action         one of the game's minimal set, repeated for 4 emulator frames; none is sticky
                   (single environments of the "-v5" ids repeat the last one at 0.25; here it is 0)
    game's start   0 to 30 no-ops, drawn by the seed; FIRE is the agent's to press: Breakout waits
                   for it in each life, and ALE's own help would press it in the first one only
    reward         as the game gives it: the learner clips
    time limit     108,000 emulator frames (27,000 steps, 30 minutes): truncated
    a lost life    ends an episode while learning, never the game; only the game's end does where
                   whole games are played

Other rules may be given (`common.games.atari_rules`).

ale-py is an optional extra under GPL-2.0-only, so it is imported only where a game is made.
"""

import contextlib
import difflib
import re
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.games.atari_rules import GAMES_PREFIX, Rules
from impala_redis.common.settings.env_id import name_of

Frames = NDArray[np.uint8]  # [N, height, width]

AS_IN_THE_PAPER = Rules()
EMULATOR_FRAMES_PER_S = 60
# The drawn size in pixels; the few games with more lines are squeezed.
SCREEN_HEIGHT, SCREEN_WIDTH = 210, 160
# The first action of the set; only in a game without lives may it be another one.
NO_OP = 0


def modern_id(env_id: str) -> str | None:
    """What we play for an older name, as Pong, Pong-v0 or PongNoFrameskip-v4; None for none."""
    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401
    older = re.fullmatch(
        r"(?:ALE/)?([A-Z]\w*?)(NoFrameskip|Deterministic|-ram)*(?:-v\d+)?", name_of(env_id)
    )
    modern = f"{GAMES_PREFIX}{older[1]}-v5" if older else None
    return modern if older and (older[2] or modern in gymnasium.registry) else None


def make(
    env_id: str,
    num_envs: int,
    whole_games: bool = False,
    num_threads: int = 1,
    rules: Rules = AS_IN_THE_PAPER,
) -> "AtariVector":
    """N games. An episode is a life, or with `whole_games` a game.

    Raises UnsupportedEnvironment: ale-py is missing, or has no such game.
    """
    return AtariVector(_emulators(env_id, num_envs, rules, num_threads=num_threads), whole_games)


def make_single(
    env_id: str, render_mode: str | None = None, rules: Rules = AS_IN_THE_PAPER
) -> "AtariGame":
    """One whole game; in the mode rgb_array it draws itself in colour.

    Raises UnsupportedEnvironment: ale-py is missing, or has no such game.
    """
    return AtariGame(env_id, render_mode, rules)


def game_seeds(seed: int, num_envs: int) -> NDArray[np.int64]:
    """The seed of each game [N]; below 2**31, since ALE takes no greater one."""
    return np.random.SeedSequence(seed).generate_state(num_envs).astype(np.int64) >> 1


class _Outcome(NamedTuple):
    """What a step brought to N games, beside the frames."""

    rewards: NDArray[Any]  # [N], whole numbers
    terminated: NDArray[np.bool_]  # [N] the game ended
    truncated: NDArray[np.bool_]  # [N] the time limit cut it

    @property
    def game_over(self) -> NDArray[np.bool_]:
        """[N] where a game is over, either way."""
        return self.terminated | self.truncated

    def with_outcome(self, other: "_Outcome") -> "_Outcome":
        """The outcome of both steps together."""
        return _Outcome(
            self.rewards + other.rewards,
            self.terminated | other.terminated,
            self.truncated | other.truncated,
        )

    def where(self, chosen: NDArray[np.bool_]) -> "_Outcome":
        """The same in the chosen games [N]; nothing in the others."""
        return _Outcome(self.rewards * chosen, self.terminated & chosen, self.truncated & chosen)


class AtariVector(VectorEnv[Frames, NDArray[np.int64], NDArray[Any]]):
    """N games with next-step autoreset. `infos["game_over"]` [N] says where a true score ends.

    The step after an episode's last is a no-op whatever its action, as in OpenAI Baselines. ALE
    makes a reset of it where the game is over. After a lost life the no-op is played. If it brings
    points, the loss of another life or the game's end with its last frame, these are held back for
    the next step, which is the first real one of the new life.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    _lives: NDArray[np.int32]  # [N], without those whose loss is held back
    _ended: NDArray[np.bool_]  # [N], in the last step: the next one is the no-op
    _held_back: _Outcome  # of the last step's no-ops
    _last_frames: Frames  # as they were where `_held_back` has a game's end

    def __init__(self, emulators: VectorEnv[Any, Any, Any], whole_games: bool) -> None:
        self._emulators = emulators
        self._whole_games = whole_games
        self.num_envs = emulators.num_envs
        _, *shape = emulators.single_observation_space.shape or ()  # a stack of one: [1, H, W]
        self.single_observation_space = spaces.Box(0, 255, tuple(shape), np.uint8)
        self.single_action_space = emulators.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = emulators.action_space

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frames, dict[str, Any]]:
        """Starts all games again, each with a seed of its own that follows from `seed`."""
        assert seed is None or isinstance(seed, int), "one seed for all games"
        seeds = None if seed is None else game_seeds(seed, self.num_envs)
        frames, infos = self._emulators.reset(seed=seeds)  # type: ignore[arg-type]
        self._lives = infos["lives"]
        none = np.zeros(self.num_envs, np.bool_)
        self._ended = none
        self._held_back = _Outcome(np.zeros(self.num_envs, np.int32), none, none)
        return frames[:, 0], infos | {"game_over": none.copy()}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Frames, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Plays an action in each, or begins the next episode where one was over."""
        no_op = self._ended
        stacks, *outcome, infos = self._emulators.step(np.where(no_op, NO_OP, actions))
        now, frames = self._defer(_Outcome(*outcome), stacks[:, 0], no_op)
        game_over, terminated = now.game_over, now.terminated
        if not self._whole_games:
            terminated = terminated | self._lives_lost(infos["lives"], no_op)
        self._ended = terminated | now.truncated
        rewards = now.rewards.astype(np.float32)
        return frames, rewards, terminated, now.truncated, infos | {"game_over": game_over}

    def _defer(
        self, outcome: _Outcome, frames: Frames, no_op: NDArray[np.bool_]
    ) -> tuple[_Outcome, Frames]:
        """Adds what was held back, and holds back what the no-ops of this step brought.

        Where the end of a game was held back, the frame is that game's last one.
        """
        was_over = self._held_back.game_over
        if was_over.any():
            frames = np.where(was_over[:, None, None], self._last_frames, frames)
        outcome = outcome.with_outcome(self._held_back)
        self._held_back = outcome.where(no_op)
        if self._held_back.game_over.any():
            self._last_frames = frames.copy()
        return outcome.where(~no_op), frames

    def _lives_lost(self, lives: NDArray[np.int32], no_op: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[N] where a life was lost; one that a no-op lost is found missing in the next step."""
        # With no life left a game may go on for a while; ALE says when it is over.
        lost = (lives < self._lives) & (lives > 0) & ~no_op
        self._lives = np.where(no_op, np.maximum(lives, self._lives), lives)
        return lost

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the games."""
        self._emulators.close()


class AtariGame(gymnasium.Env[Frames, np.int64]):
    """One whole game as a single environment, with the same frames as `make` gives."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": EMULATOR_FRAMES_PER_S // AS_IN_THE_PAPER.frameskip,
    }

    def __init__(
        self, env_id: str, render_mode: str | None = None, rules: Rules = AS_IN_THE_PAPER
    ) -> None:
        assert render_mode in (None, "rgb_array"), f"no render mode {render_mode}"
        self.render_mode = render_mode
        frames_per_s = max(EMULATOR_FRAMES_PER_S // rules.frameskip, 1)
        self.metadata = {**self.metadata, "render_fps": frames_per_s}
        self._game = make(env_id, 1, whole_games=True, rules=rules)
        # ALE's vector form draws in one size, so a second emulator draws the screen: the same seed
        # and actions give the same game.
        self._screen = (
            AtariVector(_emulators(env_id, 1, rules, screen=True), True) if render_mode else None
        )
        self._picture: Frames | None = None
        self.observation_space = self._game.single_observation_space
        self.action_space = self._game.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frames, dict[str, Any]]:
        """Starts a game; with a seed, the same game as a vector of one environment plays."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31)) if seed is None else seed
        frames, _ = self._game.reset(seed=seed)
        if self._screen:
            self._picture = self._screen.reset(seed=seed)[0][0]
        return frames[0], {}

    def step(self, action: np.int64) -> tuple[Frames, float, bool, bool, dict[str, Any]]:
        """Plays an action."""
        actions = np.array([action])
        frames, rewards, terminated, truncated, _ = self._game.step(actions)
        if self._screen:
            self._picture = self._screen.step(actions)[0][0]
        return frames[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Frames | None:
        """The screen in colour [210, 160, 3], as the maximum of the same two emulator frames."""
        return self._picture

    def close(self) -> None:
        """Ends the game."""
        self._game.close()
        if self._screen:
            self._screen.close()


def _emulators(
    env_id: str, num_envs: int, rules: Rules, screen: bool = False, num_threads: int = 1
) -> VectorEnv[Any, Any, Any]:
    """ALE's own N games: the agent's frames, or the whole screen in colour."""
    try:
        from ale_py.vector_env import AtariVectorEnv
    except ImportError as error:
        raise UnsupportedEnvironment(
            f"{env_id} needs ale-py: run pip install 'impala-redis[atari]', or in a checkout "
            "scripts/setup.sh atari"
        ) from error
    arguments: dict[str, Any] = rules._asdict() | {"noop_max": rules.noop_max + 1}  # drawn below it
    if screen:
        arguments |= {"img_height": SCREEN_HEIGHT, "img_width": SCREEN_WIDTH}
    emulators: VectorEnv[Any, Any, Any] = AtariVectorEnv(
        _rom(env_id),
        num_envs,
        num_threads=num_threads,
        grayscale=not screen,
        stack_num=1,
        reward_clipping=False,
        **arguments,
        # It would start a new game at each lost life, so that no second life is ever played.
        episodic_life=False,
    )
    return emulators


def _rom(env_id: str) -> str:
    """ALE's own name of a game; ale-py has registered the ids. Raises UnsupportedEnvironment."""
    name = name_of(env_id)
    spec = gymnasium.registry.get(name)
    if spec is None:
        known = [known for known in gymnasium.registry if known.startswith(GAMES_PREFIX)]
        near = modern_id(env_id) or difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UnsupportedEnvironment(
            f"there is no Atari game {name!r}; ids look like ALE/MsPacman-v5, and the nearest "
            f"is {near}"
        )
    return str(spec.kwargs["game"])
