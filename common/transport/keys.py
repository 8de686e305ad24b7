"""All that passes between the programs, and the only file that names a key.

Every key begins with `impala:{RUN}:`. The braces are literal: a Redis Cluster hash tag, so that one
run's keys share a slot.

    key           type           what
    trajectories  list           blocks waiting for the learner, oldest first, bounded
    pushing       list           the name of `trajectories` within a push, where nobody sees it
    inflight      list           a mark for each block taken by the learner, not yet committed
    claimed       list           the last of these blocks, until the next claim says they arrived;
                                 of a group's further learners `claimed:<rank>`
    weights       hash           version, payload, digest, published_at
    spec          hash           json, digest, fingerprint, state: all an actor needs to join;
                                 renewed_at: when a learner has last renewed its lease, by the
                                 server's clock
    stats         hash           the books: produced, consumed, dropped_oldest, dead_lettered,
                                 stale_rejected, abandoned, dup_push, foreign (came around push),
                                 generation, and dead_lettered:<reason>
    seq           hash           for each producer (actor#incarnation) its last sequence number and,
                                 after a space, the time of that push in seconds; one that has been
                                 silent for a day is forgotten when another joins
    joins         hash           how often an actor of each name has joined since the learner began
    epoch         hash           number, holder, token: fencing; ranks: how many learners share the
                                 run; taken:<rank>, committed:<rank>: the cursors of each;
                                 in_flight: what all have in flight; learner:<figure>: the
                                 learner's latest figures of its own
    lock          string, TTL    the holder of the learner's lease
    dead          list           at most 100 records of refused blocks, newest first
    actor:<id>    hash, TTL      a live actor's heartbeat and figures

Those of a population, whose members are runs, begin with `impala-population:{NAME}:`:

    members       hash           for each member its last record, as JSON
    state:<id>    hash, TTL      record: the member's record as it was then; payload: its state of
                                 training
    lineage       list           a JSON line for each of the last 1,000 copies, newest first

Delivery is at most once and accounted exactly: a block is trained on once or stands in one counter
(`functions.lua`).
"""


class AnyKeys:
    """The names of the keys of something that has them to itself."""

    whose: str
    prefix: str

    def named(self, name: str) -> str:
        """The key that `functions.NEEDS` calls so; empty if there is none."""
        return str(getattr(self, name, ""))


class Keys(AnyKeys):
    """The names of one run's keys."""

    whose = "run's"

    def __init__(self, run: str) -> None:
        prefix = self.prefix = f"impala:{{{run}}}:"
        self.trajectories = prefix + "trajectories"
        self.pushing = prefix + "pushing"
        self.inflight = prefix + "inflight"
        self.claimed = prefix + "claimed"
        self.weights = prefix + "weights"
        self.spec = prefix + "spec"
        self.stats = prefix + "stats"
        self.seq = prefix + "seq"
        self.joins = prefix + "joins"
        self.epoch = prefix + "epoch"
        self.lock = prefix + "lock"
        self.dead = prefix + "dead"
        self._actor = prefix + "actor:"

    def claimed_by(self, rank: int) -> str:
        """The blocks of the last claim of one learner, by its rank in its group."""
        return f"{self.claimed}:{rank}" if rank else self.claimed

    def named(self, name: str) -> str:
        """The same, where "actor:" stands for a heartbeat."""
        return self.actor("question") if name == "actor:" else super().named(name)

    def actor(self, actor: str) -> str:
        """The heartbeat of one actor."""
        return self._actor + actor


class PopulationKeys(AnyKeys):
    """The names of one population's keys: of runs that copy from each other."""

    whose = "population's"

    def __init__(self, population: str) -> None:
        prefix = self.prefix = f"impala-population:{{{population}}}:"
        self.members = prefix + "members"
        self.lineage = prefix + "lineage"
        self.states = prefix + "state:"

    def state(self, member: str) -> str:
        """The state of training that one member offers."""
        return self.states + member


def escaped(pattern: str) -> str:
    """A text that a MATCH pattern takes literally."""
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in pattern)
