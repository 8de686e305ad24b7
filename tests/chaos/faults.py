"""Every fault of the schedule, as something done to the system; each returns when it is over."""

import random
import signal
import time
from collections.abc import Callable

from chaos.proxy import Proxy
from chaos.schedule import Fault
from chaos.system import System
from support import eventually

# What a squeezed server is left with: less than it holds, so that nothing may be added.
SQUEEZED = "1mb"
LATENCY_S, JITTER_S, BYTES_PER_S = 0.05, 0.1, 1_000_000.0
SLICE_BYTES = 64
DROPPED_SHARE = 0.3
GARBAGE = (b"", b"garbage", b"IMPA" + bytes(20), b"\x93" * 5000)


class Faults:
    """Does faults to a system, and counts what it did that the books must show."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.garbage = 0  # blocks pushed by hand
        self.wipes = 0

    def inflict(self, fault: Fault) -> None:
        """Does it, for as long as it lasts."""
        rng = random.Random(fault.draw)
        act: Callable[[float, random.Random], None] = getattr(self, f"_{fault.kind}")
        act(fault.for_s, rng)

    # Programs.

    def _kill_actor(self, for_s: float, rng: random.Random) -> None:
        self._system.kill_actor(rng, signal.SIGKILL)

    def _stop_actor(self, for_s: float, rng: random.Random) -> None:
        self._system.kill_actor(rng, signal.SIGTERM)

    def _kill_learner(self, for_s: float, rng: random.Random) -> None:
        self._system.kill_learner(signal.SIGKILL)

    def _stop_learner(self, for_s: float, rng: random.Random) -> None:
        self._system.kill_learner(signal.SIGTERM)

    def _second_learner(self, for_s: float, rng: random.Random) -> None:
        self._system.start_second_learner()

    def _take_over(self, for_s: float, rng: random.Random) -> None:
        self._system.take_over()

    # The server.

    def _freeze_server(self, for_s: float, rng: random.Random) -> None:
        with self._system.server.frozen():
            time.sleep(for_s)

    def _pause_clients(self, for_s: float, rng: random.Random) -> None:
        with self._system.server.client() as client:
            client.execute_command("CLIENT", "PAUSE", round(for_s * 1000), "ALL")
        time.sleep(for_s)

    def _kill_server(self, for_s: float, rng: random.Random) -> None:
        self._system.server.stop()
        time.sleep(for_s)
        self._system.server.start()

    def _stop_server(self, for_s: float, rng: random.Random) -> None:
        self._system.server.stop(signal.SIGTERM)
        time.sleep(for_s)
        self._system.server.start()

    def _wipe_server(self, for_s: float, rng: random.Random) -> None:
        self.wipes += 1
        self._system.server.wipe()

    def _squeeze_memory(self, for_s: float, rng: random.Random) -> None:
        with self._system.server.client() as client:
            limit = client.config_get("maxmemory")["maxmemory"]
            client.config_set("maxmemory", SQUEEZED)
            time.sleep(for_s)
            client.config_set("maxmemory", limit)

    def _push_garbage(self, for_s: float, rng: random.Random) -> None:
        self.garbage += 1  # before the oracle can see it
        with self._system.server.client() as client:
            client.rpush(self._system.keys.trajectories, rng.choice(GARBAGE))

    def _fail_over(self, for_s: float, rng: random.Random) -> None:
        sentinels = self._system.sentinels
        assert sentinels is not None
        # The master killed last is a replica again only after some 10 s.
        eventually(sentinels.in_step, what="the replica to be in step")
        self.wipes += 1  # what the replica had not yet got is lost
        master = sentinels.master()
        master.stop()
        sentinels.wait_for_another(master)
        master.start()

    # The network.

    def _cut_network(self, for_s: float, rng: random.Random) -> None:
        for proxy in self._proxies():
            proxy.reset()

    def _part_actors(self, for_s: float, rng: random.Random) -> None:
        self._toxic(self._system.to_actors, for_s, "blackhole", True)

    def _part_learner(self, for_s: float, rng: random.Random) -> None:
        self._toxic(self._system.to_learner, for_s, "blackhole", True)

    def _slow_network(self, for_s: float, rng: random.Random) -> None:
        for proxy in self._proxies():
            proxy.latency_s, proxy.jitter_s, proxy.bytes_per_s = LATENCY_S, JITTER_S, BYTES_PER_S
        time.sleep(for_s)
        for proxy in self._proxies():
            proxy.heal()

    def _slice_network(self, for_s: float, rng: random.Random) -> None:
        for proxy in self._proxies():
            proxy.slice_bytes = SLICE_BYTES
        time.sleep(for_s)
        for proxy in self._proxies():
            proxy.heal()

    def _drop_replies_to_actors(self, for_s: float, rng: random.Random) -> None:
        self._toxic(self._system.to_actors, for_s, "drop_replies", DROPPED_SHARE)

    def _drop_replies_to_learner(self, for_s: float, rng: random.Random) -> None:
        self._toxic(self._system.to_learner, for_s, "drop_replies", DROPPED_SHARE)

    def _proxies(self) -> tuple[Proxy, Proxy]:
        return self._system.to_actors, self._system.to_learner

    def _toxic(self, proxy: Proxy, for_s: float, name: str, value: object) -> None:
        setattr(proxy, name, value)
        time.sleep(for_s)
        proxy.heal()
