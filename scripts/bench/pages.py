"""The tables of docs/performance.md, each from the JSON that a benchmark has printed."""

import re
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from bench.steady import STAGES
from bench.transport.moved import WORDS as MOVED

Document = dict[str, Any]
# The contestants in the words of the page.
PEERS = {
    "impala-redis": "impala-redis",
    "jax-loop-compiled": "one loop in JAX, compiled before",
    "jax-loop": "one loop in JAX, compiled meanwhile",
    "pufferlib": "PufferLib, PPO, one process",
    "sample-factory": "Sample Factory, APPO",
    "stable-baselines3": "Stable-Baselines3, A2C, one process",
    "rllib": "RLlib, IMPALA",
}
# The cases of the feeder's benchmark in the words of the page.
FED = {
    "atari:16": "Pong, blocks of 16 games",
    "atari:64": "Pong, blocks of 64 games",
    "atari:512": "Pong, blocks of 512 games",
    "atari-fast": "Pong, blocks of 16 games, half of a batch replayed",
    "masked-cartpole": "masked CartPole, 64 environments, LSTM",
    "cartpole-throughput": "CartPole, 1,024 environments",
}
# The packages of those that have another name.
PACKAGES = {"jax-loop-compiled": "jax", "jax-loop": "jax", "rllib": "ray"}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    written = (["", *(f" {cell} " if cell else " " for cell in cells), ""] for cells in lines)
    return "\n".join("|".join(cells) for cells in written).replace("| --- ", "|---")


def rounded(value: float) -> str:
    """A figure with three digits that count."""
    if abs(value) >= 100:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def spread(figure: dict[str, float], scale: float = 1.0) -> str:
    """The median and, where the repeats differ, the least and the greatest."""
    median, low, high = (rounded(scale * figure[name]) for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def share(figure: dict[str, float]) -> str:
    """A spread of shares."""
    median, low, high = (f"{figure[name]:.2f}" for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def throughput_table(training: Document) -> str:
    """What the whole system trains, and of what that is which share."""
    (of,) = training["figures"].values()
    rows = [
        ("frames trained per second, Redis included", spread(of["frames_per_s"])),
        ("share of its programs' limit: each on a core, without Redis", share(of["share"])),
        ("share of the roofline of the learner's core", share(of["roofline_share"])),
        ("share of the learner's time that computes nothing", share(of["non_compute_share"])),
        ("policy lag, mean, in updates", spread(of["policy_lag_mean"])),
    ]
    return table(("CartPole-v1, preset `cartpole-throughput`", ""), rows)


def solve_table(solve: Document) -> str:
    """How soon a task is solved."""
    seeds = solve["seeds"]
    seconds = f"{solve['wall_s_median']:.2f}, at worst {solve['wall_s_worst']:.2f}"
    ratio = f"{solve['torch_ratio_median']:.2f}, at worst {solve['torch_ratio_worst']:.2f}"
    rows = [
        ("seconds from the command to solved", seconds),
        ("over those of `import torch`, measured beside it", ratio),
        ("seconds until the command has ended", f"{solve['command_s_median']:.2f}"),
        ("frames", f"{solve['frames_median']:,.0f}"),
        ("solved", f"{solve['solved']} of {seeds} seeds"),
        ("least greedy return of a final policy", f"{solve['greedy_least']:.0f}"),
    ]
    return table(("CartPole-v1, preset `cartpole`", ""), rows)


def learning_table(learning: Document) -> str:
    """Updates from memory below the roofline, one thread."""
    steps, rows = learning["about"]["unroll_length"], []
    for case, of in learning["figures"].items():
        engine, batch, threads = re.findall(r"^(\w+), batch (\d+), threads (\d+)$", case)[0]
        if threads == "1":
            rows.append(
                (
                    f"{int(batch):,} x {steps}, {engine}",
                    rounded(1e3 * of["update_s"]["median"]),
                    rounded(of["frames_per_s"]["median"]),
                    rounded(of["gflops"]["median"]),
                    share(of["roofline_share"]),
                    share(of["share"]),
                )
            )
    heads = ("update, engine", "ms", "frames/s", "GFLOP/s", "of the roofline")
    return table((*heads, "of torch's bare update"), rows)


def stages_table(training: Document) -> str:
    """Where an update's time goes, in the system and from memory, ms."""
    (of,) = training["figures"].values()
    names = [name for name in (*STAGES, "other_s") if name in of]
    rows = [
        (words, *(f"{1e3 * of[n]['median']:.1f}" if n in of else "" for n in columns))
        for words, columns in (
            ("in the system", ("update_s", *names)),
            ("from memory", tuple(f"alone_{name}" for name in ("update_s", *names))),
        )
    ]
    return table(("ms", "update", *(name.removesuffix("_s") for name in names)), rows)


def acting_table(acting: Document) -> str:
    """An actor without Redis."""
    rows = [
        (
            f"{int(case.split()[0]):,}",
            rounded(of["frames_per_s"]["median"]),
            *(
                rounded(1e3 * of[name]["median"])
                for name in ("unroll_s", "environment_s", "policy_s", "rest_s")
            ),
        )
        for case, of in acting["figures"].items()
    ]
    return table(("environments", "frames/s", "unroll, ms", "environment", "policy", "rest"), rows)


def group_table(group: Document) -> str:
    """Learners that share each batch, beside one."""
    rows = [
        (
            name,
            spread(of["frames_per_s"]),
            f"{group['ratios'][name]['median']:.2f}",
            rounded(1e3 * of["update_s"]["median"]),
            f"{of['standby_share']['median']:.2f}",
        )
        for name, of in group["figures"].items()
    ]
    return table(("", "frames/s", "to one", "an update, ms", "standing by"), rows)


def feeding_table(feeding: Document) -> str:
    """What the feeder does with a step, on its thread, and its parts from memory."""
    parts = ("unzip_us", "unpack_us", "copy_us", "replay_us")
    rows = [
        (
            FED.get(case, case),
            spread(of["feeder_us"]),
            *(rounded(of[name]["median"]) if name in of else "" for name in parts),
        )
        for case, of in feeding["figures"].items()
    ]
    heads = ("us a step", "the feeder's thread", "unzip", "read and check, unzip included")
    return table((*heads, "copy to batches", "replay memory"), rows)


def actors_table(actors: Document) -> str:
    """One machine with ever more actors."""
    rows = [
        (
            case.split()[0],
            rounded(of["frames_per_s"]["median"]),
            rounded(of["played_per_s"]["median"]),
            f"{100 * of['dropped_share']['median']:.0f} %",
            f"{of['policy_lag_mean']['median']:.1f}, {of['policy_lag_p95']['median']:.1f}",
        )
        for case, of in actors["figures"].items()
    ]
    heads = ("actors", "frames/s trained", "played", "dropped", "policy lag, mean and p95")
    return table(heads, rows)


def pixels_table(pixels: Document) -> str:
    """Pong on two cores, and what each part does alone on one."""
    (of,) = pixels["figures"].values()
    trained = f"**{spread(of['frames_per_s'])}**"
    rows = [
        ("**trained, Redis included**: two actors, one learner", trained),
        ("ALE alone on one core", spread(of["environment_frames_per_s"])),
        ("the actor's network alone on one core", spread(of["policy_frames_per_s"])),
        ("an update alone on one core", spread(of["update_frames_per_s"])),
        ("the same in plain PyTorch", spread(of["bare_frames_per_s"])),
        ("roofline of a core that learns", spread(of["roofline_frames_per_s"])),
        ("two cores, shared perfectly", spread(of["shared_frames_per_s"])),
        ("share of that", share(of["share_of_shared"])),
    ]
    return table(("steps/s of Pong on 2 cores, shallow network", ""), rows)


def transport_table(transport: Document) -> str:
    """One actor to one learner through one server, by the size of a block."""
    moved = transport["figures"]["moved"]
    rows = []
    for size, words in MOVED.items():
        cells = [words]
        for way in ("tcp", "unix"):
            mb_per_s, shares = (
                sorted(moved[f"{size}_{way}_{name}"]) for name in ("mb_per_s", "share")
            )
            ends = {"median": median(shares), "low": shares[0], "high": shares[-1]}
            cells += [rounded(median(mb_per_s)), share(ends)]
        rows.append(cells)
    of = "of redis-benchmark"
    return table(("block", "TCP, MB/s", of, "Unix socket, MB/s", of), rows)


def peers_table(fps: Document, solve: Document) -> str:
    """Everyone's frames per second and seconds to solve."""
    rows = []
    for name, words in PEERS.items():
        both = [document["contestants"].get(name) for document in (fps, solve)]
        known = [one for one in both if one]
        if known:
            versions = known[0]["versions"]
            version = versions.get(PACKAGES.get(name, name), "")
            label = f"{words} ({'JAX ' if 'jax' in name else ''}{version})"
            rows.append((label, *(cell for one in both for cell in _compared(name, one))))
    ours = "ours is faster by"
    return table(("", "frames/s trained", ours, "seconds to solve", ours), rows)


def _compared(name: str, one: Document | None) -> tuple[str, str]:
    """A contestant's figure, and how many times as fast ours is."""
    if one is None:
        return "", ""
    if one["median"] is None:
        return "not measured", ""
    known = {end: one[end] for end in ("median", "low", "high") if one[end] is not None}
    factor = one["ours_is_faster_by"]
    ratio = f"{factor:.2f}" if factor and name != "impala-redis" else ""
    return spread(known) if len(known) == 3 else rounded(one["median"]), ratio
