"""A storm for a group of learners: ranks die, join again and repeat; another group takes over.

    PYTHONPATH=tests .venv/bin/python -m chaos.ranks --steps 3000 --seed 7

Everything happens one after the other, so that a model in Python knows what the books must be after
each step. With `--break` the cursor of a rank is switched off: then the storm must end badly.
"""

import contextlib
import random
import tempfile
from collections import Counter
from pathlib import Path

import click

from chaos.broken import sabotaged
from impala_redis.common.errors import Fenced, ImpalaError, OutOfStep
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.transport import functions
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink, residual

QUEUE_BLOCKS, ACTORS, MOST_RANKS = 8, 4, 3
# How often each step comes, relative to the others.
WEIGHTS = {"push": 50, "work": 50, "die": 3, "reopen": 1, "take_over": 2}


class Rank:
    """A learner of the group as it knows itself: its link, and the blocks that it holds."""

    def __init__(self, url: str, holder: str, rank: int, ranks: int) -> None:
        self.link = LearnerLink(url, "storm", holder, 60.0, rank, ranks)
        self.held: list[bytes] = []


class Storm:
    """One run, from the first group to the verdict."""

    def __init__(self, url: str, seed: int) -> None:
        self._url, self._rng = url, random.Random(seed)
        self._groups = 0
        self._actor = ActorLink(url, "storm", "actor")
        self._monitor = MonitorLink(url, "storm", "oracle")
        self._sequences = [0] * ACTORS
        self.ranks: list[Rank] = []
        self.trained: Counter[bytes] = Counter()
        self.counts: Counter[str] = Counter()  # what happened
        self.books: Counter[str] = Counter()  # as they must be
        self._begin_group()

    def run(self, steps: int) -> list[str]:
        """Each kind of step once, then so many drawn ones; what must not be, or nothing."""
        drawn = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps)
        for step in (*WEIGHTS, *drawn):
            self.counts[step] += 1
            try:
                getattr(self, f"_{step}")()
            except ImpalaError as error:
                return [f"{step}: {error}"]
            if offences := self._offences():
                return [f"after {step}: {offence}" for offence in offences]
        return []

    def close(self) -> None:
        """Ends every connection."""
        for link in (self._actor, self._monitor, *(rank.link for rank in self.ranks)):
            link.close()

    def _offences(self) -> list[str]:
        books = self._monitor.read_books()
        found = [f"{block!r} was trained on twice" for block, n in self.trained.items() if n > 1]
        if left := residual(books):
            found.append(f"the books leave {left} blocks unexplained: {books}")
        held = sum(len(rank.held) for rank in self.ranks)
        expected = {**self.books, "in_flight": held}
        wrong = {name: n for name, n in expected.items() if books[name] != n}
        if wrong or books["queued"] > QUEUE_BLOCKS:
            found.append(f"the books are {books}, and {wrong} was expected")
        return found

    # The steps.

    def _push(self) -> None:
        """An actor pushes a block, now and then twice."""
        actor = self._rng.randrange(ACTORS)
        self._sequences[actor] += 1
        block = f"a{actor}:{self._sequences[actor]}".encode()
        for _ in range(self._rng.choice((1, 1, 2))):
            self._actor.push(f"a{actor}#1", self._sequences[actor], block, QUEUE_BLOCKS)

    def _work(self) -> None:
        """A rank trains on some of what it holds and claims more; the reply may be lost."""
        rank = self._rng.choice(self.ranks)
        settled = Settled(self._rng.randint(0, len(rank.held)))
        most, before = self._rng.randint(0, 4), rank.link._cursor
        blocks, _ = rank.link.settle_and_claim(settled, most)
        if self._rng.random() < 0.2:
            self.counts["replies lost"] += 1
            rank.link._cursor = before
            assert rank.link.settle_and_claim(settled, most)[0][: len(blocks)] == blocks
            rank.link._cursor = before
            blocks, _ = rank.link.settle_and_claim(settled, 4)
        self.trained.update(rank.held[: len(settled)])
        rank.held = rank.held[len(settled) :] + blocks
        self.books["consumed"] += len(settled)

    def _die(self) -> None:
        """A further rank ends, and another program joins in its place."""
        for number in range(1, len(self.ranks)):
            if self._rng.random() < 0.5:
                old = self.ranks[number]
                old.link.close()
                self.ranks[number] = Rank(self._url, old.link.holder, number, len(self.ranks))
                self._abandon(old)
                self.ranks[number].link.join()

    def _reopen(self) -> None:
        """Rank 0 opens the run again, on either thread; the others are told, and join."""
        first, *others = self.ranks
        if self._rng.random() < 0.5:
            first.link.reopen_since(first.link.epoch)
        first.link.reopen()
        self._abandon(first)
        for rank in others:
            with contextlib.suppress(OutOfStep):
                rank.link.settle_and_claim(Settled(len(rank.held)), 2)
                raise AssertionError("a rank went on as if nothing had happened")
            rank.link.join()
            self._abandon(rank)

    def _take_over(self) -> None:
        """Another group takes the run over, often of another size; the old one must be refused."""
        old = self.ranks
        self._begin_group()
        for rank in old:
            with contextlib.suppress(Fenced):
                rank.link.settle_and_claim(Settled(len(rank.held)), 2)
                raise AssertionError("a learner was served whose run was taken over")
            self._abandon(rank)
            rank.link.close()

    def _begin_group(self) -> None:
        self._groups += 1
        size = self._rng.randint(1, MOST_RANKS) if self._groups > 1 else MOST_RANKS
        group = (f"group{self._groups}", range(size))
        self.ranks = [Rank(self._url, group[0], rank, size) for rank in group[1]]
        self.ranks[0].link.open(take_over=True)
        self.ranks[0].link.announce("{}", "f", "running")
        for rank in self.ranks[1:]:
            rank.link.join()

    def _abandon(self, rank: Rank) -> None:
        self.books["abandoned"] += len(rank.held)
        rank.held = []


def storm(steps: int, seed: int, is_broken: bool = False) -> tuple[list[str], Counter[str]]:
    """What must not be, and what happened, in a storm on a server of its own."""
    provide = functions.provide
    if is_broken:
        source = sabotaged("cursor")
        functions.provide = lambda client, url, *keys: client.function_load(source, replace=True)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            EmbeddedServer(Path(folder)) as server,
            contextlib.closing(Storm(server.url, seed)) as made,
        ):
            return made.run(steps), made.counts
    finally:
        functions.provide = provide


@click.command(context_settings={"show_default": True})
@click.option("--steps", type=click.IntRange(min=1), default=3000)
@click.option("--seed", type=int, default=0, help="Of everything that is drawn.")
@click.option("--break", "is_broken", is_flag=True, help="Switch a rank's cursor off.")
def main(steps: int, seed: int, is_broken: bool) -> None:
    """Lets ranks of a group die, join and repeat, and says whether anything was lost unseen."""
    offences, counts = storm(steps, seed, is_broken)
    click.echo(", ".join(f"{name} {n:,}" for name, n in counts.items()))
    for offence in offences:
        click.echo(f"OFFENCE  {offence}")
    click.echo("VERDICT  " + ("bad" if offences else "good: nothing was lost unseen"))
    raise SystemExit(bool(offences))


if __name__ == "__main__":
    main()
