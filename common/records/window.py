"""The mean return of 100 episodes in which short and long ones count as often as they are played.

The last 100 episodes that ended are no fair sample: after a start the short ones end first, and
where successes are short and failures long, the first 100 are all successes. So the window holds
the newest episodes of each environment, the same number of each: 100 in all, with one more of the
environments that came first where 100 cannot be divided. Of more than 100 environments 100 have a
place. Once all have gone on for a while, these are the last 100 episodes that anyone would take.

Environments come and go with their actors. Those that begin together wait together: of each its
first episodes count, which are known when the slowest has finished them, and the window takes all
of them at once. Until then the others, or the last known window, give the mean.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

# The mean return is over this many episodes.
EPISODE_WINDOW = 100
# An actor is gone when nothing of it was trained on for this long, while as many blocks came as
# would have been this many of each actor.
GONE_S, GONE_TURNS = 10.0, 20
# An environment loses its place while the others finish this many episodes each, on average, and
# these are so many steps: its episode may never end. Few tasks let an episode take longer.
PATIENCE_EPISODES, PATIENCE_STEPS = 30, 2000
# Or when so many of its columns were refused before it ended an episode.
PATIENCE_REFUSED = 5
# This many actors are known at once; nobody could make the learner remember more.
MOST_ACTORS = 10_000
# Multiples of it modulo 1 are spread evenly, however many of them there are.
GOLDEN_RATIO = 0.618033988749895


class Ended(Protocol):
    """An episode that ended."""

    @property
    def column(self) -> int:
        """The environment's index in its actor's blocks."""

    @property
    def episode_return(self) -> float:
        """The sum of its rewards."""

    @property
    def length(self) -> int:
        """The number of its steps."""


class Played(NamedTuple):
    """A block that was trained on, as far as the window looks at it."""

    actor: tuple[str, int]  # name and incarnation
    num_envs: int
    first: bool  # whether it is the actor's first block, in which its environments begin
    episodes: Sequence[Ended]
    left_out: Sequence[int] = ()  # columns that were refused
    # Which task each of the environments plays; empty where there is but one.
    tasks: Sequence[int] = ()


class _Place:
    """An environment with a place in the window."""

    def __init__(self, begins: bool, ends: int) -> None:
        self.fresh: list[float] = []  # returns of the blocks that are just added
        # The newest; before the window takes them in, the first.
        self.returns: deque[float] = deque(maxlen=EPISODE_WINDOW)
        self.begun = begins  # else its first episode began at an unknown time and does not count
        self.inside = False  # whether the window has taken it in
        self.last_end = ends  # as `EpisodeWindow._ends`
        self.refused = 0  # columns before its first end
        # Where its returns stand in the window: this many from there on, the next one at `turn`.
        self.first = self.count = self.turn = 0

    def settle(self) -> None:
        """Keeps the fresh returns that count."""
        fresh = self.fresh
        if not self.begun:
            fresh, self.begun = fresh[1:], True
        if not self.inside:
            fresh = fresh[: EPISODE_WINDOW - len(self.returns)]
        self.returns.extend(fresh)

    def follow(self, window: list[float]) -> None:
        """Puts the fresh returns where the oldest of this environment stand in the window."""
        fresh, count = self.fresh, self.count
        if len(fresh) >= count:
            window[self.first : self.first + count] = fresh[-count:]
            self.turn = 0
            return
        for episode_return in fresh:
            window[self.first + self.turn] = episode_return
            self.turn = (self.turn + 1) % count


class _Actor:
    """An actor whose blocks come, and which of its environments have places."""

    def __init__(self) -> None:
        self.num_envs = 0
        self.seen_s, self.seen_block = 0.0, 0
        self.places: dict[int, _Place] = {}  # by column
        self.fresh: dict[int, list[float]] = {}  # of those places
        self.unplaced: deque[int] = deque()  # columns
        self.resting: set[int] = set()  # columns whose episodes did not end


class EpisodeWindow:
    """The mean return of 100 training episodes, and the number of all."""

    def __init__(self, returns: Iterable[float] = (), episodes: int = 0) -> None:
        """`returns` are those of an earlier window, which give the mean until there is a new one.

        Fewer than 100 are no window.
        """
        known = list(returns)[-EPISODE_WINDOW:]
        self.returns = known if len(known) == EPISODE_WINDOW else []
        self.episodes = episodes
        self._actors: OrderedDict[tuple[str, int], _Actor] = OrderedDict()  # longest silent first
        self._blocks = 0
        self._ends = self._steps = 0  # episodes of environments with places, and their steps
        self._ends_before = self._steps_before = 0  # when the stuck were last looked for
        # In the window; about to come in together; to come in after those.
        self._inside: list[_Place] = []
        self._waiting: list[_Place] = []
        self._later: list[_Place] = []
        self._follows = False  # whether `returns` follows the episodes of those inside
        self._changed = False  # whether a place was given or taken, or one of them has news

    @property
    def mean_return(self) -> float | None:
        """The mean over the window; None before there was one."""
        return sum(self.returns) / EPISODE_WINDOW if self.returns else None

    @property
    def mean_returns(self) -> list[float | None]:
        """The same by task, where there is but one."""
        return [self.mean_return]

    def add(self, blocks: Iterable[Played], now_s: float) -> None:
        """Counts blocks in the order in which they were trained on, by a monotonic clock."""
        for block in blocks:
            self._add_block(block, now_s)
        self._settle()
        self._forget_the_gone(now_s)
        ends, steps = self._ends - self._ends_before, self._steps - self._steps_before
        if min(ends / PATIENCE_EPISODES, steps / PATIENCE_STEPS) > self._taken:
            self._let_the_stuck_rest()
        if self._changed and (self._later or self._waiting or not self._follows):
            self._take_in()
        self._changed = False

    @property
    def _taken(self) -> int:
        return len(self._inside) + len(self._waiting) + len(self._later)

    def _add_block(self, block: Played, now_s: float) -> None:
        actor = self._actors.get(block.actor)
        if actor is None:
            actor = self._actors[block.actor] = _Actor()
        else:
            self._actors.move_to_end(block.actor)
        self._blocks += 1
        actor.seen_s, actor.seen_block = now_s, self._blocks
        if block.num_envs > actor.num_envs:
            new = range(actor.num_envs, block.num_envs)
            actor.unplaced.extend(sorted(new, key=lambda column: column * GOLDEN_RATIO % 1))
            actor.num_envs = block.num_envs
        if actor.unplaced:
            self._give_places(actor, block.first)
        self.episodes += len(block.episodes)
        fresh_of = actor.fresh.get
        for episode in block.episodes:  # there may be thousands of one step
            fresh = fresh_of(episode.column)
            if fresh is not None:
                fresh.append(episode.episode_return)
                self._steps += episode.length
        if actor.resting:
            self._wake(actor, block.episodes)
        if block.left_out:
            self._note_refused(actor, block.left_out)

    def _wake(self, actor: _Actor, episodes: Sequence[Ended]) -> None:
        """Gives environments a place again whose episode has ended after all, and counts it."""
        woken = actor.resting & {episode.column for episode in episodes}
        actor.resting -= woken
        actor.unplaced.extendleft(woken)
        self._give_places(actor, begins=True)
        for episode in episodes:
            if episode.column in woken and episode.column in actor.fresh:
                actor.fresh[episode.column].append(episode.episode_return)

    def _note_refused(self, actor: _Actor, columns: Sequence[int]) -> None:
        """Takes the places of environments of which nothing is fit: no end of theirs would come."""
        hopeless = []
        for column in columns:
            place = actor.places.get(column)
            if place is not None and not place.returns:
                place.refused += 1
                if place.refused >= PATIENCE_REFUSED:
                    hopeless.append(column)
        self._remove(_rest(actor, hopeless))

    def _give_places(self, actor: _Actor, begins: bool) -> None:
        while actor.unplaced and self._taken < EPISODE_WINDOW:
            column = actor.unplaced.popleft()
            place = actor.places[column] = _Place(begins, self._ends)
            actor.fresh[column] = place.fresh
            self._changed = True
            self._later.append(place)

    def _settle(self) -> None:
        """Hands the fresh returns on."""
        for place in (*self._inside, *self._waiting, *self._later):
            if place.fresh:
                self._ends += len(place.fresh)
                place.last_end = self._ends
                place.settle()
                if place.inside and self._follows:
                    place.follow(self.returns)
                place.fresh.clear()
                self._changed = True

    def _take_in(self) -> None:
        """Makes the window of as many environments as have finished their share."""
        inside, waiting, later = self._inside, self._waiting, self._later
        if later and _shares([*inside, *waiting, *later]):
            self._make_of([*inside, *waiting, *later], [], [])
        elif waiting and _shares([*inside, *waiting]):
            self._make_of([*inside, *waiting], later, [])
        else:
            if not waiting:  # those that come from now on wait for the next time
                self._waiting, self._later = later, []
            if not self._follows and _shares(inside):
                self._make_of(inside, self._waiting, self._later)

    def _make_of(self, inside: list[_Place], waiting: list[_Place], later: list[_Place]) -> None:
        self._inside, self._waiting, self._later = inside, waiting, later
        self._follows, self.returns = True, []
        for place, share in zip(inside, _shares(inside), strict=True):
            if not place.inside:
                # What ended while it waited for slower ones is left out: the long ones are missing.
                place.returns = deque(islice(place.returns, share), EPISODE_WINDOW)
                place.inside = True
            place.first, place.count, place.turn = len(self.returns), share, 0
            self.returns += list(place.returns)[-share:]

    def _forget_the_gone(self, now_s: float) -> None:
        """Takes the places of actors from which nothing comes any more."""
        while self._actors:
            actor = next(iter(self._actors.values()))
            turns = (self._blocks - actor.seen_block) / len(self._actors)
            gone = now_s - actor.seen_s > GONE_S and turns > GONE_TURNS
            if not gone and len(self._actors) <= MOST_ACTORS:
                break
            self._actors.popitem(last=False)
            self._remove(set(actor.places.values()))

    def _let_the_stuck_rest(self) -> None:
        """Takes the places of environments whose episodes do not end while others' do."""
        before, self._ends_before = self._ends_before, self._ends
        self._steps_before = self._steps
        for actor in self._actors.values():
            stuck = [column for column, p in actor.places.items() if p.last_end <= before]
            self._remove(_rest(actor, stuck))

    def _remove(self, places: set[_Place]) -> None:
        """Takes these places; environments without one get them, the oldest actor's first."""
        if not places:
            return
        self._changed = True
        self._follows = self._follows and places.isdisjoint(self._inside)
        self._inside, self._waiting, self._later = (
            [place for place in several if place not in places]
            for several in (self._inside, self._waiting, self._later)
        )
        for actor in self._actors.values():
            self._give_places(actor, begins=False)


def _rest(actor: _Actor, columns: Sequence[int]) -> set[_Place]:
    """Lets these environments wait until an episode of theirs ends; the places that they had."""
    actor.resting.update(columns)
    for column in columns:
        del actor.fresh[column]
    return {actor.places.pop(column) for column in columns}


def _shares(places: Sequence[_Place]) -> list[int]:
    """How many episodes each of them gives, 100 in all; empty unless all have finished theirs."""
    if not places:
        return []
    each, more = divmod(EPISODE_WINDOW, len(places))
    shares = [each + 1] * more + [each] * (len(places) - more)
    finished = all(len(place.returns) >= share for place, share in zip(places, shares, strict=True))
    return shares if finished else []
