"""Several servers that act as one: a Redis Cluster, and a master with a replica and sentinels."""

import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from chaos.servers import OwnServer, free_port
from impala_redis.common.local import children
from support import eventually, usable_servers

SLOTS = 16384
NODE_TIMEOUT_MS = 1000
# The name of the master, and for how long it must be silent to be down.
MASTER, DOWN_AFTER_S = "primary", 1.0


class _Group:
    """What starts several processes and ends them together."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()

    def close(self) -> None:
        """Ends them all."""
        self._stack.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _server(self, name: str, *options: str) -> OwnServer:
        directory = self._directory / name
        directory.mkdir()
        return self._stack.enter_context(OwnServer(directory, *options))


class OwnCluster(_Group):
    """A Redis Cluster in which nearly all slots are the first node's at the start.

    Each other node has one, because a node without any becomes a replica.
    """

    def __init__(self, directory: Path, nodes: int = 2, *options: str) -> None:
        super().__init__(directory)
        cluster = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            *("--repl-diskless-sync-delay", "0"),
        )
        buses = [free_port() for _ in range(nodes)]
        self.nodes = [
            self._server(f"node-{n}", *cluster, "--cluster-port", str(bus), *options)
            for n, bus in enumerate(buses)
        ]
        self._names = [self._ask(n, "MYID").decode() for n in range(nodes)]
        self._ask(0, "ADDSLOTSRANGE", 0, SLOTS - nodes)
        for number in range(1, nodes):
            self._ask(number, "ADDSLOTS", SLOTS - number)
            self._ask(number, "MEET", "127.0.0.1", self.nodes[0].port, buses[0])
        for number in range(nodes):
            eventually(lambda n=number: self._is_whole(n), what="the cluster to be whole")

    def move(self, key: str, source: int, target: int) -> None:
        """Moves the slot of a key, with all of its keys, from one node to another."""
        slot = self.begin(key, source, target)
        while self.carry(slot, source, target):
            pass
        self.settle(slot, source, target)

    def replicate(self, source: int, replica: int) -> None:
        """Makes a node the replica of another; its own slot goes to the node before it."""
        for number in (replica, replica - 1):
            self._ask(number, "SETSLOT", SLOTS - replica, "NODE", self._names[replica - 1])
        eventually(lambda: self._follows(source, replica), what="the replica to be in step")

    def begin(self, key: str, source: int, target: int) -> int:
        """Begins to move the slot of a key; its number."""
        slot = int(self._ask(source, "KEYSLOT", key))
        self._ask(target, "SETSLOT", slot, "IMPORTING", self._names[source])
        self._ask(source, "SETSLOT", slot, "MIGRATING", self._names[target])
        return slot

    def carry(self, slot: int, source: int, target: int, most: int = 1000) -> int:
        """Moves some keys of a slot on its way; how many there were."""
        keys = self._ask(source, "GETKEYSINSLOT", slot, most)
        with self.nodes[source].client() as operator:
            for key in keys:
                operator.migrate("127.0.0.1", self.nodes[target].port, key, 0, 5000)
        return len(keys)

    def settle(self, slot: int, source: int, target: int) -> None:
        """Gives the slot to its new node."""
        for number in (target, source):
            self._ask(number, "SETSLOT", slot, "NODE", self._names[target])

    def _follows(self, source: int, replica: int) -> bool:
        with suppress(redis.RedisError):  # until it has heard of its slot's new node
            self._ask(replica, "REPLICATE", self._names[source])
        with self.nodes[replica].client() as operator:
            info = operator.info("replication")
        port = info.get("master_port"), info.get("master_link_status")
        return bool(port == (self.nodes[source].port, "up"))

    def _is_whole(self, number: int) -> bool:
        info = self._ask(number, "INFO")
        known = int(info["cluster_known_nodes"]) == len(self.nodes)
        return bool(info["cluster_state"] == "ok" and known)

    def _ask(self, number: int, *command: object) -> Any:
        first, *others = command
        with self.nodes[number].client() as operator:
            return operator.execute_command(f"CLUSTER {first}", *others)


class OwnSentinels(_Group):
    """A master, its replica, and three sentinels that watch both."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        at_once = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        first = self._server("first", *at_once, *options)
        follow = ("--replicaof", "127.0.0.1", str(first.port))
        self.servers = [first, self._server("second", *at_once, *options, *follow)]
        self.ports = [free_port() for _ in range(3)]
        self.sentinels = [self._sentinel(port, first.port) for port in self.ports]
        eventually(self._are_ready, what="the sentinels to know each other")

    @property
    def url(self) -> str:
        """The address of the master by its sentinels."""
        places = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{places}/{MASTER}"

    def master(self) -> OwnServer:
        """The server that most sentinels call the master."""
        told = [self._ask(port, "GET-MASTER-ADDR-BY-NAME")[1] for port in self.ports]
        port = max(told, key=told.count)
        return next(server for server in self.servers if server.port == port)

    def other(self) -> OwnServer:
        """The server that is not the master."""
        master = self.master()
        return next(server for server in self.servers if server is not master)

    def in_step(self) -> bool:
        """Whether the other server is a replica that has the master's data."""
        with suppress(redis.RedisError), self.other().client() as operator:
            return operator.info("replication").get("master_link_status") == "up"
        return False

    def wait_for_another(self, before: OwnServer, timeout_s: float = 20.0) -> None:
        """Waits until the sentinels have made another server the master."""
        eventually(lambda: self.master() is not before, timeout_s, "a fail-over")

    def _sentinel(self, port: int, master: int) -> subprocess.Popen[bytes]:
        directory = self._directory / f"sentinel-{port}"
        directory.mkdir()
        lines = [
            *(f"port {port}", "bind 127.0.0.1", f"dir {directory}"),
            f"sentinel monitor {MASTER} 127.0.0.1 {master} 2",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_S * 1000:.0f}",
            f"sentinel failover-timeout {MASTER} 4000",
        ]
        config = directory / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        process = children.spawn(
            [usable_servers()[0], config, "--sentinel"],
            log_file=directory / "sentinel.log",
            death_signal=signal.SIGKILL,
        )
        self._stack.callback(children.end, process, 3.0)
        return process

    def _are_ready(self) -> bool:
        with suppress(redis.RedisError):
            states = [self._ask(port, "MASTER") for port in self.ports]
            return all(s["num-slaves"] == s["num-other-sentinels"] - 1 == 1 for s in states)
        return False

    def _ask(self, port: int, question: str) -> Any:
        with redis.Redis(port=port, socket_timeout=5) as sentinel:
            return sentinel.execute_command(f"SENTINEL {question}", MASTER)
