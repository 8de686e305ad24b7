"""The chaos run: training goes on while a seeded scheduler breaks what can be broken.

    ./scripts/chaos.sh --minutes 20 --seed 7

It ends well when every block is explained, none was trained on twice, no program ended that should
not have, training went on within 15 s of every fault, memory stayed flat, and CartPole is solved.
With `--break` a mechanism of the transport is switched off first: the run must then end badly.
"""

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from chaos import ranks
from chaos.faults import Faults
from chaos.oracle import BooksWatch, Growth, MemoryWatch, audit
from chaos.schedule import KINDS, KINDS_WITH_SENTINELS, faults
from chaos.system import System
from impala_redis.common.transport.actor_link import MOST_TOGETHER
from impala_redis.common.transport.monitor import WHEREABOUTS
from support import eventually

# Training goes on within this after every fault (I10); beyond the second it has stopped for good.
RECOVERY_S, GIVEN_UP_S = 15.0, 90.0
# A process may grow by this from the end of its warm-up to its end, or else it leaks.
GROWTH_MB, MORE_FILES = 12.0, 8
# What may have been trained on between the last reading of the books and their wipe.
LOST_SIGHT_BLOCKS = 500
# Steps of the storm for a group of learners, which takes some seconds.
RANK_STEPS = 1000


class ChaosRun:
    """One run, from the first program to the verdict."""

    def __init__(
        self, folder: Path, seed: int, broken: str | None, with_sentinels: bool, queue_policy: str
    ) -> None:
        self.queue_policy = queue_policy
        self.system = System(folder, seed, broken, with_sentinels, queue_policy)
        self.kinds = KINDS_WITH_SENTINELS if with_sentinels else KINDS
        self.faults = Faults(self.system)
        self.books = BooksWatch(self.system.url, lambda: self.faults.garbage)
        self.memory = MemoryWatch()
        self.counts: Counter[str] = Counter()
        self.recoveries: list[tuple[float, str]] = []
        self.offences: list[str] = []
        self.solved_after_s: float | None = None

    def storm(self, seed: int, minutes: float, chosen: tuple[str, ...]) -> None:
        """Faults, one after the other, until the time is over or training has stopped."""
        if not self._wait_for_progress("the start"):
            return
        self.recoveries.clear()  # that was no fault
        until = time.monotonic() + minutes * 60
        for fault in faults(seed, chosen, self.kinds):
            self._go_on_for(fault.calm_s)
            if time.monotonic() > until:
                return
            self.counts[fault.kind] += 1
            try:
                self.faults.inflict(fault)
            except AssertionError as error:
                self.offences.append(f"{fault.kind}: {str(error).splitlines()[0]}")
                return
            if not self._wait_for_progress(fault.kind):
                return

    def finish(self) -> None:
        """The sky clears: CartPole is solved, if all is well so far, and everything ends."""
        began = time.monotonic()
        try:
            if not self.offences:
                self._hear_from_every_actor()
                assert self.system.finish() == 0, "CartPole was not solved after the storm"
                self.solved_after_s = time.monotonic() - began
            self.system.stop_actors()
        except AssertionError as error:
            self.offences.append(f"at the end: {str(error).splitlines()[0]}")
        self.books.close()

    def _hear_from_every_actor(self) -> None:
        """None is alive and silent: each gets blocks through again."""
        self.system.supervise()
        names = [actor.name.split()[-1] for actor in self.system.actors.values()]
        before = dict(self.books.accepted)
        eventually(
            lambda: all(self.books.accepted.get(n, 0) > before.get(n, 0) for n in names),
            RECOVERY_S,
            "every actor to push again",
        )

    def verdict(self) -> list[str]:
        """Everything that must not be; empty when all is well."""
        found = self.offences + self.books.offences + self.system.surprises
        trained = audit(learner.output for learner in self.system.learners)
        found += [f"trained on twice: {block}" for block in trained.twice[:5]]
        found += [f"trained on out of order: {block}" for block in trained.out_of_order[:5]]
        totals = self.books.totals()
        consumed, trainings = totals["consumed"], trained.blocks + len(trained.twice)
        most = consumed + totals["abandoned"] + totals["in_flight"]
        lost_sight = LOST_SIGHT_BLOCKS * self.faults.wipes
        if not consumed <= trainings <= most + lost_sight:
            found.append(f"{trainings} blocks were trained on, {consumed} to {most} by the books")
        if self.queue_policy == "block" and totals["dropped_oldest"]:
            found.append(f"{totals['dropped_oldest']} blocks were dropped, and none may be")
        # What a wipe made an actor send once more was refused: one push of each actor.
        sent_again = self.faults.wipes * len(self.system.actors) * MOST_TOGETHER
        if totals["dead_lettered:duplicate"] > sent_again:
            found.append(f"{totals['dead_lettered:duplicate']} blocks stood in the list twice")
        refused = totals["dead_lettered"] - totals["dead_lettered:duplicate"]
        if refused > self.faults.garbage:
            found.append(f"{refused} blocks were refused, {self.faults.garbage} were garbage")
        found += [
            f"after {name} training went on only after {took_s:.1f} s"
            for took_s, name in self.recoveries
            if took_s > RECOVERY_S
        ]
        for name, words in self.system.outputs:
            program = Path(name.split()[0]).name
            if "Traceback" in words:
                found.append(f"{program} printed a traceback")
            if "is not what was claimed" in words:
                found.append(f"{program}: what was in flight was not what was claimed")
        found += [f"{g.process} grows: {g}" for g in self.memory.growths() if _leaks(g)]
        return found

    def figures(self) -> dict[str, Any]:
        """What happened, for the table and for JSON."""
        trained = audit(learner.output for learner in self.system.learners)
        totals = self.books.totals()
        worst_s, worst = max(self.recoveries, default=(0.0, "-"))
        return {
            "faults": sum(self.counts.values()),
            **{kind: self.counts[kind] for kind in self.kinds if self.counts[kind]},
            "replies dropped": self.system.to_actors.dropped + self.system.to_learner.dropped,
            "learners in all": len(self.system.learners),
            "trainings begun": self.system.trainings,
            "readings of the books": self.books.readings,
            "generations": len(self.books.by_generation),
            **{name: totals[name] for name in ("produced", *WHEREABOUTS, "dup_push", "foreign")},
            "residual": totals["produced"] - sum(totals[name] for name in WHEREABOUTS),
            "blocks in the learners' logs": trained.blocks,
            "trained on twice": len(trained.twice),
            "largest recovery time, s": round(worst_s, 1),
            "largest recovery after": worst,
            "median recovery time, s": round(_median([s for s, _ in self.recoveries]), 2),
            "solved after the storm, s": self.solved_after_s and round(self.solved_after_s, 1),
            **{
                f"memory of {g.process}": (
                    f"{g.mb:.0f} MB after {g.life_s / 60:.0f} min, {g.mb_per_h:+.1f} MB/h, "
                    f"{g.files} files ({g.files_more:+d})"
                )
                for g in _longest(self.memory.growths())
            },
        }

    def _go_on_for(self, for_s: float) -> None:
        """Lets the system work, and restarts what has ended."""
        until = time.monotonic() + for_s
        while True:
            self.system.supervise()
            self.memory.sample(self.system.processes())
            if (left_s := until - time.monotonic()) <= 0:
                return
            time.sleep(min(left_s, 0.05))

    def _wait_for_progress(self, after: str) -> bool:
        """Waits until blocks are consumed again; notes how long that took."""
        began, seen = time.monotonic(), self.books.readings
        base: tuple[str, int] | None = None
        while time.monotonic() - began < GIVEN_UP_S:
            self._go_on_for(0.02)
            if self.books.readings < seen + 2:
                continue  # of the two, one may have begun before the fault was over
            generation, consumed = self.books.consumed()
            base = base or (generation, consumed)
            if consumed > (base[1] if generation == base[0] else 0):
                self.recoveries.append((time.monotonic() - began, after))
                return True
        self.offences.append(f"after {after} training did not go on within {GIVEN_UP_S:.0f} s")
        return False


def _leaks(growth: Growth) -> bool:
    hours = growth.life_s / 3600
    return growth.mb_per_h * hours > GROWTH_MB or growth.files_more > MORE_FILES


def _longest(growths: list[Growth]) -> list[Growth]:
    """The learner that lived longest, alone."""
    learners = sorted((g for g in growths if "learner" in g.process), key=lambda g: g.life_s)
    return [g for g in growths if "learner" not in g.process] + learners[-1:]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


@click.command(context_settings={"show_default": True})
@click.option("--minutes", type=click.FloatRange(min=0.05), default=1.0, help="Of faults.")
@click.option("--seed", type=int, default=0, help="Of everything that is drawn.")
@click.option("--faults", "kinds", help=f"These alone, with commas: {', '.join(KINDS)}.")
@click.option(
    "--break",
    "broken",
    type=click.Choice(["dedupe", "fencing", "commit"]),
    help="Switch a mechanism off, to see that the verdict finds it.",
)
@click.option(
    "--sentinels",
    "with_sentinels",
    is_flag=True,
    help="A master, a replica and three sentinels: fail-overs, and no faults of the network.",
)
@click.option(
    "--queue-policy",
    type=click.Choice(["drop-oldest", "block"]),
    default="drop-oldest",
    help="Of the run.",
)
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Leave the logs there."
)
def main(
    minutes: float,
    seed: int,
    kinds: str | None,
    broken: str | None,
    with_sentinels: bool,
    queue_policy: str,
    keep: Path | None,
) -> None:
    """Trains CartPole while things break, and says whether anything was lost unseen."""
    chosen = tuple(kinds.split(",")) if kinds else ()
    if unknown := set(chosen) - set(KINDS_WITH_SENTINELS if with_sentinels else KINDS):
        raise click.BadParameter(f"there is no fault {', '.join(sorted(unknown))}")
    click.echo(
        f"chaos for {minutes:g} min, seed {seed}"
        + ", behind sentinels" * with_sentinels
        + f", {broken} broken" * bool(broken)
    )
    if keep and keep.exists() and any(keep.iterdir()):
        raise click.BadParameter(f"{keep} is not empty")
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = ChaosRun(folder, seed, broken, with_sentinels, queue_policy)
        try:
            run.storm(seed, minutes, chosen)
            run.finish()
            offences, figures = run.verdict(), run.figures()
            if not chosen:
                offences += [f"group: {one}" for one in ranks.storm(RANK_STEPS, seed)[0]]
        finally:
            run.system.end()
    table = Table("what", "figure")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:,}" if isinstance(figure, int) else str(figure))
    Console(width=100).print(table)
    click.echo(json.dumps(figures | {"seed": seed, "minutes": minutes, "offences": offences}))
    for offence in offences:
        click.echo(f"OFFENCE  {offence}")
    click.echo("VERDICT  " + ("bad" if offences else "good: nothing was lost unseen"))
    raise SystemExit(bool(offences))


if __name__ == "__main__":
    main()
