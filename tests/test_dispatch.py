"""Jobs on a Ray cluster: places, retries, faults and what waits, with a stand-in for Ray."""

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_repro import nodefacts
from sae_repro.errors import StudyError
from sae_repro.numerics.kernels import CHOSEN, PORTABLE
from sae_repro.sidebyside import WorkerLostError, side_by_side


class FakeRay(types.ModuleType):
    """Carries calls out when they are waited for, from the newest to the oldest, in `folder`."""

    class exceptions:  # noqa: N801 - a module of Ray's
        class RayError(Exception):
            """As Ray's."""

        class OutOfMemoryError(RayError):
            """As Ray's."""

        class NodeDiedError(RayError):
            """As Ray's."""

        class RayTaskError(RayError):
            """As Ray's, around an error of the call."""

            def __init__(self, cause: Exception) -> None:
                super().__init__(str(cause))
                self.cause = cause

    def __init__(self, folder: Path) -> None:
        super().__init__("ray")
        self.folder, self.most_at_once, self.cancelled = folder, 0, 0
        self.lose: list[type[Exception]] = []
        """How the next jobs are lost."""
        self.options: list[dict[str, Any]] = []

    def init(self, **settings: Any) -> Any:
        self.address = settings["address"]
        return types.SimpleNamespace(dashboard_url="127.0.0.1:8265")

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(get_node_id=lambda: "n1")

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "NodeID": "n1", "NodeManagerAddress": "10.0.0.1",
             "Resources": {"CPU": 2.0}},
            {"Alive": True, "NodeID": "n2", "NodeManagerAddress": "10.0.0.2",
             "Resources": {"CPU": 1.0}},
            {"Alive": False, "NodeID": "n3", "Resources": {"CPU": 64.0}},
        ]  # fmt: skip

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        def of(thing: Any) -> Any:
            self.options.append({"of": thing.__name__, **options})
            made = types.SimpleNamespace()
            made.remote = (
                (lambda *args: Actor(thing(*args)))
                if isinstance(thing, type)
                else (lambda *args: Call(thing, args))
            )
            made.options = lambda **more: made
            return made

        return of

    def wait(
        self, running: list[Any], *, num_returns: int, timeout: float
    ) -> tuple[list[Any], list[Any]]:
        if num_returns > 1:
            return running, []
        self.most_at_once = max(self.most_at_once, len(running))
        return running[-1:], running[:-1]

    def get(self, call: Any) -> Any:
        function, args = call.function, call.args
        if function.__name__ == "_on_node" and self.lose:
            raise self.lose.pop(0)
        if getattr(function, "__self__", None) is not None:
            return function(*args)
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return function(*args)
        except Exception as error:
            raise self.exceptions.RayTaskError(error) from None
        finally:
            os.chdir(before)

    def cancel(self, call: Any, *, force: bool) -> None:
        self.cancelled += 1

    def kill(self, actor: Any) -> None:
        actor.killed = True


class Call:
    """A call that is not carried out yet."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args


class Actor:
    """Methods as Ray's: called at once where no value is asked for."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.thing, name)
        if name == "report":
            return types.SimpleNamespace(remote=method)
        return types.SimpleNamespace(remote=lambda *args: Call(method, args))


class Job:
    """Reads a file and writes one, by relative paths, as every job does."""

    begun: list[int] = []  # noqa: RUF012

    def __init__(self, number: int, fault: Exception | None = None, after: str = "in") -> None:
        self.number, self.fault, self.name, self.after = number, fault, f"cell {number}", after

    def reads(self) -> list[Path]:
        return [Path(self.after)]

    def writes(self) -> list[Path]:
        return [Path(f"result {self.number}")]

    def __call__(self, report: Callable[[int], None]) -> str:
        self.begun.append(self.number)
        report(1)
        if self.fault is not None and self.number == 2:
            raise self.fault
        Path(f"result {self.number}").write_text(Path(self.after).read_text())
        return f"job {self.number}"


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """The stand-in, its nodes started elsewhere; the working folder is a study's."""
    for name in ("elsewhere", "study"):
        (tmp_path / name).mkdir()
    fake = FakeRay(tmp_path / "elsewhere")
    monkeypatch.setitem(sys.modules, "ray", fake)
    strategies = types.SimpleNamespace(NodeAffinitySchedulingStrategy=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "ray.util", types.ModuleType("ray.util"))
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
    monkeypatch.chdir(tmp_path / "study")
    Path("in").write_text("input")
    monkeypatch.setenv("SAE_REPRO_EXECUTOR", "ray")
    monkeypatch.setenv("SAE_REPRO_NODE_FOLDER", str(tmp_path / "node"))
    for name in ("SAE_REPRO_JOBS", "SAE_REPRO_RESOURCES", "SAE_REPRO_RAY_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    Job.begun.clear()
    return fake


def run(fault: Exception | None = None) -> list[float]:
    return side_by_side([(Job(n, fault), 1) for n in range(7)], what="train", unit="step")


def test_each_job_runs_elsewhere_and_its_result_comes_back(
    ray: FakeRay, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(run()) == 7
    results = sorted(Path().glob("result ?"))
    assert [path.read_text() for path in results] == ["input"] * 7
    assert list(ray.folder.iterdir()) == []
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "ray: 2 nodes, 3 jobs at a time; dashboard http://127.0.0.1:8265"
    assert sorted(line.partition(",")[0] for line in lines) == [f"job {n}" for n in range(7)]
    assert list(Path(".sae-repro").iterdir()) == []


@pytest.mark.parametrize(("jobs", "shares", "most"), [
    (None, "", 3), ("2", "", 2), ("5", "", 5), (None, "cpus=2", 1), (None, "cpus=0.5", 6),
])  # fmt: skip
def test_as_many_run_at_once_as_the_cluster_has_room_for_or_as_were_asked_for(
    ray: FakeRay, jobs: str | None, shares: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_RESOURCES", shares)
    if jobs is not None:
        monkeypatch.setenv("SAE_REPRO_JOBS", jobs)
    run()
    assert ray.most_at_once == most


def test_a_share_that_no_node_has_is_refused_before_any_job(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_RESOURCES", "gpus=1")
    with pytest.raises(StudyError, match=r"cpus=1 gpus=1: no node .*10\.0\.0\.1: cpus=2 gpus=0"):
        run()
    assert not Job.begun


def test_nodes_compute_with_the_kernels_of_the_study(ray: FakeRay) -> None:
    """They would start workers with the kernels that suit their own processors."""
    run()
    [task] = [options for options in ray.options if options["of"] == "_on_node"]
    assert task["runtime_env"] == {"env_vars": {**PORTABLE, CHOSEN: "portable"}}
    assert task["max_retries"] == 0, "this program begins it again itself"


def test_only_a_lost_job_begins_again(ray: FakeRay, capsys: pytest.CaptureFixture[str]) -> None:
    ray.lose = [ray.exceptions.NodeDiedError] * 2
    assert len(run()) == 7
    assert sorted(Job.begun) == list(range(7)), "a lost one had not come to an end"
    assert capsys.readouterr().out.count("lost with its worker or node (NodeDiedError)") == 2


@pytest.mark.parametrize("kind", ["NodeDiedError", "OutOfMemoryError"])
def test_a_job_that_is_lost_each_time_is_one_line(ray: FakeRay, kind: str) -> None:
    ray.lose = [getattr(ray.exceptions, kind)] * 3
    with pytest.raises(WorkerLostError) as caught:
        run()
    message = str(caught.value)
    assert message.startswith("cell 2 was lost 3 times with its worker or node of the Ray cluster")
    assert ("because its memory was full" in message) == (kind == "OutOfMemoryError")
    assert message.endswith("what is finished is kept: run the same command to go on")
    assert "\n" not in message
    assert ray.cancelled > 0, "what still ran"


def test_a_result_that_is_damaged_on_its_way_is_made_again(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sae_repro.travelling import Depot

    take, damaged = Depot.take, [b"damaged"]

    def damaging(self: Depot, attempt: str, file: int, number: int, piece: bytes) -> None:
        take(self, attempt, file, number, damaged.pop() if damaged else piece)

    monkeypatch.setattr(Depot, "take", damaging)
    run()
    assert len(Job.begun) == 8
    assert all(path.read_text() == "input" for path in Path().glob("result ?"))
    assert "not the bytes that were sent); begun again" in capsys.readouterr().out


def test_faults_of_jobs_come_through(ray: FakeRay) -> None:
    with pytest.raises(StudyError, match=r"^this file$"):
        run(StudyError("this file"))
    with pytest.raises(StudyError, match=r"^cell 2: memory is full"):
        run(MemoryError())
    with pytest.raises(KeyError) as caught:
        run(KeyError("bug"))
    assert caught.value.__notes__ == ["in the job cell 2"]
    with pytest.raises(StudyError, match=r"a node cannot import this program .*No module"):
        run(ModuleNotFoundError("No module named 'sae_repro'"))


def test_a_node_with_other_libraries_refuses_before_any_job(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = iter([{"torch": "2.9"}, {"torch": "2.9"}, {"torch": "2.8"}])
    monkeypatch.setattr(nodefacts, "libraries", lambda: next(versions))
    with pytest.raises(StudyError, match=r"\(10\.0\.0\.2\) has torch 2\.8, here 2\.9"):
        run()
    assert not Job.begun


def test_what_reads_anothers_result_waits_for_it(ray: FakeRay) -> None:
    jobs = [Job(0, after="result 1"), Job(1), Job(3, after="result 0")]
    side_by_side([(job, 1) for job in jobs], what="evaluate", unit="SAE")
    assert Job.begun == [1, 0, 3]
    assert Path("result 3").read_text() == "input"


def test_a_job_that_does_not_say_what_it_reads_runs_on_this_machine(ray: FakeRay) -> None:
    def here(report: Callable[[int], None]) -> str:
        Path("here").write_text(str(Path.cwd()))
        return "here"

    assert len(side_by_side([(here, 1), (Job(0), 1)], what="compare", unit="part")) == 2
    assert Path("here").read_text() == str(Path.cwd())
    assert Path("result 0").is_file()


def test_a_client_of_a_cluster_is_told_to_be_a_node(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAE_REPRO_RAY_ADDRESS", "ray://host:10001")
    with pytest.raises(StudyError, match="files travel from a node of the cluster"):
        run()


def test_without_ray_the_line_says_how_to_get_it(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"ray can't be imported .*pip install '\.\[ray\]'"):
        run()
