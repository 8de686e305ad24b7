"""A connection and a run's keys, and what any program may ask of a run.

`actor_link`, `learner_link` and `monitor` say what each kind of program may do. Every method of
theirs may raise RedisUnreachable (try again: all of them may be repeated) and RedisDenied (final);
the others are named.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from impala_redis.common.errors import (
    RedisDenied,
    RunMissing,
    ServerDemoted,
    UnsuitableServer,
)
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.transport import functions
from impala_redis.common.transport.functions import fcall
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.replies import (
    MOST_VERSION,
    WEIGHTS,
    SpecReply,
    WeightsReply,
    weights_from,
    whole_number,
)


class Link:
    """A connection and a run's keys."""

    def __init__(self, url: str, run: str, name: str) -> None:
        self.run, self.keys = run, Keys(run)
        # Any: redis-py's types allow text replies, ours are always bytes.
        self.client: Any = connect(url, f"impala-{name}")

    @property
    def url(self) -> str:
        """The address of the server that is spoken to, which a cluster or sentinels may change."""
        return str(self.client.address)

    def close(self) -> None:
        """Ends the connection."""
        self.client.close()

    def require(self, *programs: str) -> None:
        """Asks whether the server offers all commands that the programs need.

        Raises UnsuitableServer or RedisDenied with every one that is missing.
        """
        self._find_node()
        with self._asking():
            functions.require(self.client, self.url, self.keys, programs)

    def read_spec(self) -> SpecReply | None:
        """The run's spec; None before a learner has written one."""
        with self._asking():
            text, digest, state = self.client.hmget(self.keys.spec, ["json", "digest", "state"])
        if text is None or digest is None or state is None:
            return None
        return SpecReply(text, digest.decode(errors="replace"), state.decode(errors="replace"))

    def read_weights(self) -> WeightsReply | None:
        """The published weights; None before there are any."""
        with self._asking():
            return weights_from(self.client.hmget(self.keys.weights, WEIGHTS))

    def current_holder(self) -> str | None:
        """The holder of the run's lease now; None if there is none."""
        return self._holder(self.client)

    def _holder(self, client: Any) -> str | None:
        with contextlib.suppress(RunMissing), self._asking(client):  # no lease: `open` mends it
            holder = client.get(self.keys.lock)
            return None if holder is None else holder.decode(errors="replace")
        return None

    def weights_version(self) -> int:
        """The version that is published now; -1 for none, and for one that no learner gets to."""
        with self._asking():
            version = whole_number(self.client.hget(self.keys.weights, "version"), -1)
        return version if version <= MOST_VERSION else -1

    def _find_node(self) -> None:
        """Goes to the node of a cluster that has the run: a read with a key leads there."""
        with contextlib.suppress(RedisDenied, UnsuitableServer):  # whoever asks next tells all
            self.read_spec()

    @contextlib.contextmanager
    def _asking(self, client: Any = None) -> Iterator[None]:
        """Turns redis-py's errors into ours, and drops connections to a server that was demoted.

        `client` is the one that asks, by default `self.client`.
        """
        client = client or self.client
        try:
            with translated(client):
                yield
        except ServerDemoted:
            client.connection_pool.disconnect(inuse_connections=False)
            raise

    def _call_on(self, client: Any, function: str, keys: Sequence[str], *arguments: Any) -> Any:
        return client.execute_command(*fcall(function, keys, *arguments))
