"""How the environments of an id are made: in their own vector form, or one by one with wrappers."""

import importlib
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from impala_redis.common.envs.masks import MaskFromInfo
from impala_redis.common.envs.pooling import is_pooled, left_to_others, make_pool
from impala_redis.common.envs.single import Single
from impala_redis.common.envs.wanted import Env, Wanted, Wrapper
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.games import atari, corridor, gridworld, masked_cartpole
from impala_redis.common.games.atari_rules import is_atari, rules_of
from impala_redis.common.games.envpool_vector import is_named
from impala_redis.common.settings import json_object
from impala_redis.common.settings.env_id import module_of, name_of
from impala_redis.common.settings.variant import AS_REGISTERED, Variant
from impala_redis.common.user_code import failures
from impala_redis.common.user_code.arguments import is_gymnasiums_own, refuse_gymnasiums_own
from impala_redis.common.user_code.parts import arguments_of, imported

log = logging.getLogger(__name__)

# Importing our own environments has registered them; these calls only use the imports.
for _module in (corridor, masked_cartpole):
    gymnasium.register_envs(_module)

_KNOWN_MODULES = ("gymnasium.envs.", "impala_redis.")


def is_known(env_id: str, variant: Variant = AS_REGISTERED) -> bool:
    """Whether it is made by code of ours, Gymnasium's, ALE's or MiniGrid's alone."""
    if variant.wrapper:
        return False
    if is_atari(env_id) or gridworld.is_gridworld(env_id):
        return module_of(env_id) in ("", "ale_py", "minigrid", "envpool")
    spec = gymnasium.registry.get(env_id)  # an id with a module is not in it
    made_by = spec.entry_point if spec is not None and not spec.additional_wrappers else None
    return isinstance(made_by, str) and made_by.startswith(_KNOWN_MODULES)


def make(wanted: Wanted) -> VectorEnv[Any, Any, Any]:
    """The environments, in their own vector form if that suits; else one by one.

    Raises UnsupportedEnvironment: it is unknown, not installed, or takes no such arguments. Raises
    ConfigError: a wrapper, or an argument of Gymnasium's own.
    """
    refuse_gymnasiums_own(wanted.kwargs)
    doing = "made" if wanted.recorder is None else "recorded"
    with failures.refusals(wanted.env_id, doing, _given(wanted.variant)):
        if is_pooled(wanted):
            return make_pool(wanted)
    wanted = left_to_others(wanted)
    env_id, variant = wanted.env_id, wanted.variant
    wrappers = _wrappers(wanted)
    with failures.refusals(env_id, doing, _given(variant)):
        if is_atari(env_id):
            rules = rules_of(variant)
            if not wrappers:
                return atari.make(env_id, wanted.num_envs, False, wanted.num_threads or 1, rules)
            make_one: Callable[..., Env] = partial(atari.make_single, env_id, rules=rules)
        else:
            _refuse_raw_frames(env_id)
            if not wrappers and not wanted.one_by_one:
                own = _in_own_vector_form(wanted)
                if own is not None:
                    return own
            make_one = partial(_made_alone, wanted)
        _note_what_is_lost(wanted)
        mode = {"render_mode": "rgb_array"} if wanted.recorder else {}

        def make_single() -> Single:
            env = make_one(**mode)
            for wrapper in wrappers:
                env = wrapper(env)
            return Single(env, env_id, wanted.info_keys)

        return SyncVectorEnv([make_single] * wanted.num_envs)


def _wrappers(wanted: Wanted) -> list[Wrapper]:
    """What is put around each single environment, the innermost first."""
    wrappers: list[Wrapper] = []
    if gridworld.is_gridworld(wanted.env_id):
        gridworld.register(wanted.env_id)
        wrappers.append(gridworld.CategoryView)
    for named in wanted.variant.wrapper:
        wrappers.append(partial(_wrapped, named, imported(named, "wrapper")))
    if wanted.recorder is not None:
        wrappers.append(wanted.recorder)
    if wanted.variant.mask_from == "info":
        if is_atari(wanted.env_id) and not wanted.variant.wrapper:
            raise UnsupportedEnvironment(
                f"{wanted.env_id} gives no masks; leave out --mask-from info, or add a --wrapper"
            )
        wrappers.append(partial(MaskFromInfo, env_id=wanted.env_id))
    return wrappers


def _wrapped(named: str, wrapper: Callable[..., Any], env: Env) -> Env:
    """The environment in a wrapper of the user's. Raises UnsupportedEnvironment: it is none."""
    found = wrapper(env)
    if not isinstance(found, gymnasium.Env):
        raise UnsupportedEnvironment(
            f"the wrapper {named} gives a {type(found).__name__}, and must give a gymnasium.Env; "
            "return the wrapped environment"
        )
    return found


def _given(variant: Variant) -> str:
    """The end of a sentence on why something cannot be made: what was given for it."""
    kwargs = variant.env_kwargs
    return "" if kwargs == json_object.EMPTY else f"; its arguments (env_kwargs) are {kwargs}"


def _refuse_raw_frames(env_id: str) -> None:
    """Raises UnsupportedEnvironment: an older name of a game of Atari, without any treatment."""
    module = module_of(env_id)
    if module not in ("", "gym", "atari_py"):
        importlib.import_module(module)
    spec = gymnasium.registry.get(name_of(env_id))
    if spec is None:
        older = module in ("", "ale_py", "gym", "gymnasium", "atari_py")
    else:
        older = str(spec.entry_point).startswith("ale_py") and not spec.additional_wrappers
    if older and (new := atari.modern_id(env_id)):
        raise UnsupportedEnvironment(
            f"it is an older name of a game of Atari; give --env {new}, which is played as in the "
            "paper: 4 frames to an action, 84x84 grey pictures"
        )


def _note_what_is_lost(wanted: Wanted) -> None:
    """Leaves lines in the log about what single environments do without."""
    if wanted.recorder is not None or wanted.one_by_one:
        return
    own = is_atari(wanted.env_id) or has_vector_form(wanted.env_id)
    if own and (wanted.variant.wrapper or wanted.variant.mask_from == "info"):
        log.warning(
            "%s is stepped one by one, not in its own vector form: %s takes single ones",
            *(wanted.env_id, wanted.takes_single_ones),
        )
    _note_one_thread(wanted.env_id, wanted.num_threads)


def _made_alone(wanted: Wanted, **arguments: Any) -> Env:
    """One environment, without wrappers.

    Raises UnsupportedEnvironment: it takes no such kwargs, or has no single form.
    """
    import_module(wanted.env_id)
    if not has_single_form(wanted.env_id):
        raise UnsupportedEnvironment(
            f"it has a vector form alone, and {wanted.takes_single_ones} takes single ones: "
            "leave that out, or register a single form, too"
        )
    limit = wanted.variant.max_episode_steps
    if limit is not None:
        arguments["max_episode_steps"] = limit
    try:
        made: Env = gymnasium.make(
            wanted.env_id, disable_env_checker=True, **arguments, **wanted.kwargs
        )
    except TypeError as error:
        found = _not_taken(error)
        if found not in wanted.kwargs:
            raise
        raise UnsupportedEnvironment(
            f"its constructor takes no argument {found!r}{_taken_by(wanted.env_id)}"
        ) from error
    return made


def _taken_by(env_id: str) -> str:
    """The arguments that an environment's constructor takes, as the end of a sentence."""
    spec = gymnasium.registry.get(name_of(env_id))
    creator: Any = spec.entry_point if spec is not None else None
    names = arguments_of(load_env_creator(creator) if isinstance(creator, str) else creator)
    shown = ", ".join(name for name in names if not is_gymnasiums_own(name))
    return f", but {shown}" if shown else ""


def import_module(env_id: str) -> None:
    """Imports the module that registers an environment, if its id names one and not EnvPool."""
    if (module := module_of(env_id)) and not is_named(env_id):
        importlib.import_module(module)


def has_single_form(env_id: str) -> bool:
    """Whether its environments can be stepped one by one, once its module is imported."""
    spec = gymnasium.registry.get(name_of(env_id))
    return spec is None or spec.entry_point is not None


def has_vector_form(env_id: str) -> bool:
    """Whether it has a vector form of its own, once its module is imported."""
    spec = gymnasium.registry.get(name_of(env_id))
    return spec is not None and spec.vector_entry_point is not None


def _in_own_vector_form(wanted: Wanted) -> VectorEnv[Any, Any, Any] | None:
    """The environments in a form that steps all at once; None if single ones are to be stepped.

    Raises UnsupportedEnvironment: it has no other form, and this one does not suit.
    """
    spec = gymnasium.registry.get(name_of(wanted.env_id))
    if spec is None or spec.vector_entry_point is None:
        return None
    try:
        made = _made_as_one(spec, wanted)
        mode = made.metadata.get("autoreset_mode")
        if mode == AutoresetMode.NEXT_STEP:
            return made
        made.close()
        why = f"its vector form resets in mode {mode}, and must use next-step autoreset"
    except TypeError as error:
        found = _not_taken(error)
        if not found:
            raise
        why = f"its vector form does not take the {found} that the environment has"
        if found in wanted.kwargs:
            why = f"its vector form does not take the {found} of --env-kwargs"
    if spec.entry_point is None:
        raise UnsupportedEnvironment(f"{why}; change that, or register a single form, too")
    log.warning("%s is stepped one by one: %s", wanted.env_id, why)
    return None


def _made_as_one(spec: Any, wanted: Wanted) -> VectorEnv[Any, Any, Any]:
    """The environments in their vector form, with that many threads if it takes a number."""
    arguments, limit = wanted.kwargs, wanted.variant.max_episode_steps
    if limit is not None:
        arguments["max_episode_steps"] = limit
    make = partial(
        gymnasium.make_vec,
        *(spec, wanted.num_envs),
        vectorization_mode="vector_entry_point",
        **arguments,
    )
    if wanted.num_threads is not None:
        try:
            return make(num_threads=wanted.num_threads)
        except TypeError as error:
            if _not_taken(error) != "num_threads":
                raise
        _note_one_thread(spec.id, wanted.num_threads)
    return make()


def _note_one_thread(env_id: str, num_threads: int | None) -> None:
    """Leaves a line in the log if more threads are wanted than step the environments."""
    if (num_threads or 1) > 1:
        log.warning(
            "%s is stepped by one thread, not by %d: that is for games of Atari and vector forms "
            "that take num_threads",
            *(env_id, num_threads),
        )


def _not_taken(error: TypeError) -> str:
    """The argument that a call did not take; empty if that was not its error."""
    found = re.search("unexpected keyword argument '(.+?)'", str(error))
    return found[1] if found else ""
