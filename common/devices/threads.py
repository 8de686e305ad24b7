"""Threads that do parts of one job at once: for work in numpy, which lets go of the interpreter."""

import queue
import threading
import weakref
from collections.abc import Callable

Job = Callable[[int], None]
Orders = queue.SimpleQueue[Job | None]
Results = queue.SimpleQueue[BaseException | None]


class Threads:
    """Threads that do parts of one job at once; they end when nobody holds them any more."""

    def __init__(self, size: int) -> None:
        """`size` of them, the caller of `do` included."""
        self._done: Results = queue.SimpleQueue()
        self._orders: list[Orders] = []
        for number in range(1, size):
            orders: Orders = queue.SimpleQueue()
            self._orders.append(orders)
            threading.Thread(
                target=_serve,
                args=(number, orders, self._done),
                name=f"computing-{number}",
                daemon=True,
            ).start()
        weakref.finalize(self, _dismiss, self._orders)

    def do(self, job: Job) -> None:
        """Calls job(0), job(1) ... on a thread each, and returns when all have ended.

        Raises what one of them raised.
        """
        for orders in self._orders:
            orders.put(job)
        try:
            job(0)
        finally:
            failures = [self._done.get() for _ in self._orders]
        for failure in filter(None, failures):
            raise failure


def _serve(
    number: int,
    orders: Orders,
    done: Results,
) -> None:
    while (job := orders.get()) is not None:
        failure = None
        try:
            job(number)
        except BaseException as error:
            failure = error
        del job  # it holds the engine
        done.put(failure)


def _dismiss(all_orders: list[Orders]) -> None:
    for orders in all_orders:
        orders.put(None)
