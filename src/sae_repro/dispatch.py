"""Jobs on the nodes of a Ray cluster, which share no folder.

Inputs travel by content from a `Depot` beside the study, in pieces through Ray's object store; what
a job leaves comes back the same way, and is verified before it takes its place. A job whose node or
worker is lost begins again elsewhere; the others go on.
"""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sae_repro.nodefacts import Facts, check_node, facts
from sae_repro.orders import ArrivalError, Hashes, Order, Queue, Travelling, order_of, put_in_place
from sae_repro.progress import say
from sae_repro.raycluster import Cluster, value_of
from sae_repro.resources import resources
from sae_repro.stage import STATE
from sae_repro.travelling import Depot, Outcome, carry_out

TRIES = 3
"""How often a job is begun before its losses end the stage."""
LOOK_SECONDS = 0.5  # between two looks at what the nodes report

Run = Callable[[Any, int, Callable[[int], None]], tuple[str | None, float]]
"""Carries out a job: (it, its number, what takes its progress) → (its line, its seconds)."""


class LostError(Exception):
    """A job was lost with its node or worker each time that it was begun."""


def results(
    jobs: Sequence[Travelling], run: Run, most: int | None, report: Callable[[int, int], None]
) -> Iterator[tuple[int, tuple[str | None, float]]]:
    """(number of the job, (its line, its seconds)) as they end, with their files in place.

    At most `most` run at a time, None: as many as the cluster has room for; it is the one that
    SAE_REPRO_RAY_ADDRESS, RAY_ADDRESS or `ray start` on this machine names, or this machine.
    `report` takes a job's number and its units done. Errors of jobs are raised as they are;
    StudyError where a node cannot carry jobs out, or would compute something else.
    """
    modules = tuple(sorted({type(job).__module__ for job in jobs}))
    cluster = Cluster(resources(), modules)
    cluster.check_nodes()
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix="arriving-") as folder:
        work = _Work(cluster, jobs, run, Path(folder).absolute())
        try:
            yield from work.results(most, report)
        finally:
            work.stop()


class _Work:
    """Jobs on their way: begun, lost and begun again, ended."""

    def __init__(
        self, cluster: Cluster, jobs: Sequence[Travelling], run: Run, arriving: Path
    ) -> None:
        ray = self._ray = cluster.ray
        self._cluster, self._jobs, self._run, self._arriving = cluster, jobs, run, arriving
        self._queue, self._hashes = Queue(jobs), Hashes()
        self._tries = [0] * len(jobs)
        self._running: dict[Any, tuple[Order, str]] = {}
        # beside the study, whatever becomes of other nodes
        self._depot = (
            ray.remote(num_cpus=0, max_concurrency=8)(Depot)
            .options(scheduling_strategy=cluster.on(cluster.own_id))
            .remote(Path.cwd(), arriving)
        )
        self._remote = ray.remote(
            max_retries=0, runtime_env=cluster.environment, **cluster.asked.of_a_task()
        )(_on_node)

    def results(
        self, most: int | None, report: Callable[[int, int], None]
    ) -> Iterator[tuple[int, tuple[str | None, float]]]:
        """See the function."""
        while self._queue:
            room = most or max(1, self._cluster.room())
            while len(self._running) < room and (n := self._queue.following()) is not None:
                self._begin(n)
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=LOOK_SECONDS)
            for number, done in self._reports().items():
                report(number, done)
            for task in ended:
                order, attempt = self._running.pop(task)
                outcome = self._outcome(task, order, attempt)
                if outcome is not None:
                    self._queue.done(order.number)
                    yield order.number, (outcome.line, outcome.seconds)

    def stop(self) -> None:
        """End what still runs."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._ray.kill(self._depot)

    def _begin(self, number: int) -> None:
        self._tries[number] += 1
        order = order_of(self._jobs[number], number, self._hashes)
        attempt = uuid.uuid4().hex
        self._ray.get(self._depot.offer.remote(order.inputs))
        task = self._remote.remote(
            order, attempt, self._depot, self._run, self._cluster.modules, self._cluster.here
        )
        self._running[task] = order, attempt

    def _outcome(self, task: Any, order: Order, attempt: str) -> Outcome | None:
        """What the job's node sent, its files in place; None where it was lost and waits again."""
        arrived = self._arriving / attempt
        try:
            outcome: Outcome = value_of(self._ray, task)
            put_in_place(order, outcome.files, arrived)
            return outcome
        except self._ray.exceptions.RayError as error:
            full = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            reason = "memory was full" if full else type(error).__name__
        except ArrivalError as error:
            full, reason = False, str(error)
        finally:
            shutil.rmtree(arrived, ignore_errors=True)
        name = getattr(order.job, "name", None) or f"{type(order.job).__name__} {order.number}"
        if self._tries[order.number] == TRIES:
            raise LostError(
                f"{name} was lost {TRIES} times with its worker or node of the Ray cluster "
                f"({reason}): "
                + ("because its memory was full" if full else "most likely its memory was full")
                + "; ask for more of it (SAE_REPRO_RESOURCES=memory=8GB), or set SAE_REPRO_JOBS "
                "to fewer"
            )
        say(f"ray: {name}: lost with its worker or node ({reason}); begun again")
        self._queue.again(order.number)
        return None

    def _reports(self) -> dict[int, int]:
        reports: dict[int, int] = self._ray.get(self._depot.reports.remote())
        return reports


class _RayLine:
    """A node's connection with the depot, an actor on the machine with the study."""

    def __init__(self, depot: Any) -> None:
        import ray  # type: ignore[import-not-found,unused-ignore]

        self._ray, self._depot = ray, depot

    def pieces(self, sha256: str, count: int) -> Iterator[bytes]:
        """See `Line`; the next piece is on its way while one is used."""
        following = self._depot.piece.remote(sha256, 0) if count else None
        for number in range(count):
            piece = following
            more = number + 1 < count
            following = self._depot.piece.remote(sha256, number + 1) if more else None
            yield self._ray.get(piece)

    def send(self, attempt: str, file: int, pieces: Iterator[bytes]) -> None:
        """See `Line`."""
        number = -1
        for number, piece in enumerate(pieces):
            self._ray.get(self._depot.take.remote(attempt, file, number, piece))
        if number < 0:  # an empty file
            self._ray.get(self._depot.take.remote(attempt, file, 0, b""))

    def report(self, number: int, done: int) -> None:
        """See `Line`."""
        self._depot.report.remote(number, done)


_compared: set[tuple[object, ...]] = set()
"""Drivers with which this worker was found to agree."""


def _on_node(
    order: Order, attempt: str, depot: Any, run: Run, modules: tuple[str, ...], driver: Facts
) -> Outcome:
    """The task: also nodes that joined late are held against the driver."""
    key = (driver.code, driver.package, *driver.libraries.items())
    if key not in _compared:
        found = facts(modules)
        check_node(found, driver, found.node)
        _compared.add(key)
    return carry_out(
        order, attempt, _RayLine(depot), lambda order, tell: run(order.job, order.number, tell)
    )
