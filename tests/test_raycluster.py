"""Jobs on a Ray cluster: lines, retries and faults, with a stand-in for Ray and, if there, Ray."""

import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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
        """How the next tries of calls are lost."""

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def remote(
        self, *, num_cpus: int, max_retries: int, runtime_env: dict[str, dict[str, str]]
    ) -> Callable[[Any], Any]:
        assert num_cpus == 1
        self.retries, self.environment = max_retries, runtime_env["env_vars"]
        return lambda function: types.SimpleNamespace(
            remote=lambda *args: (function, args, object())
        )

    def wait(self, running: list[Any], *, num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most_at_once = max(self.most_at_once, len(running))
        return running[-1:], running[:-1]

    def get(self, call: Any) -> Any:
        function, args, _ = call
        for attempt in range(self.retries + 1):
            if not self.lose:
                break
            if attempt == self.retries:
                raise self.lose.pop(0)
            self.lose.pop(0)
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


class Job:
    """Writes a file by a relative path, as every job does."""

    def __init__(self, number: int, fault: Exception | None = None) -> None:
        self.number, self.fault, self.name = number, fault, f"cell {number}"

    def __call__(self, report: Callable[[int], None]) -> str:
        report(1)
        if self.fault is not None and self.number == 2:
            raise self.fault
        Path(f"result {self.number}").write_text("done")
        return f"job {self.number}"


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """The stand-in, its nodes started elsewhere; the working folder is a study's."""
    for name in ("elsewhere", "study"):
        (tmp_path / name).mkdir()
    fake = FakeRay(tmp_path / "elsewhere")
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("SAE_REPRO_EXECUTOR", "ray")
    monkeypatch.delenv("SAE_REPRO_JOBS", raising=False)
    return fake


def run(fault: Exception | None = None) -> list[float]:
    return side_by_side([(Job(n, fault), 1) for n in range(7)], what="train", unit="step")


def test_each_job_runs_in_the_studys_folder_and_has_its_line(
    ray: FakeRay, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(run()) == 7
    assert sorted(path.name for path in Path().iterdir()) == [f"result {n}" for n in range(7)]
    assert list(ray.folder.iterdir()) == []
    lines = [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(lines) == [f"job {n}" for n in range(7)]


@pytest.mark.parametrize("jobs", [None, "2", "5"])
def test_as_many_run_at_once_as_the_cluster_has_cpus_or_as_were_asked_for(
    ray: FakeRay, jobs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if jobs is not None:
        monkeypatch.setenv("SAE_REPRO_JOBS", jobs)
    run()
    assert ray.most_at_once == int(jobs or 3)


def test_nodes_compute_with_the_kernels_of_the_study(ray: FakeRay) -> None:
    """They would start workers with the kernels that suit their own processors."""
    run()
    assert ray.environment == {**PORTABLE, CHOSEN: "portable"}


def test_a_job_of_a_lost_node_runs_once_more(ray: FakeRay) -> None:
    ray.lose = [ray.exceptions.NodeDiedError]
    assert len(run()) == 7
    assert len(list(Path().iterdir())) == 7


@pytest.mark.parametrize("kind", ["NodeDiedError", "OutOfMemoryError"])
def test_a_job_that_is_lost_twice_is_one_line(ray: FakeRay, kind: str) -> None:
    ray.lose = [getattr(ray.exceptions, kind)] * 2
    with pytest.raises(WorkerLostError) as caught:
        run()
    message = str(caught.value)
    assert message.startswith("a worker or node of the Ray cluster was lost 2 times with one job")
    assert ("because its memory was full" in message) == (kind == "OutOfMemoryError")
    assert message.endswith("what is finished is kept: run the same command to go on")
    assert "\n" not in message
    assert ray.cancelled > 0, "what still ran"


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


def test_a_node_without_the_studys_folder_is_named(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "cwd", lambda: Path("/no/such/study"))
    monkeypatch.setattr(ray, "get", lambda call: call[0](*call[1]))
    with pytest.raises(StudyError, match=r"/no/such/study: No such file .* under the same path"):
        run()


def test_without_ray_the_line_says_how_to_get_it(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"ray can't be imported .*pip install '\.\[ray\]'"):
        run()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of two nodes on this machine, each started in a folder of its own."""
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    before = Path.cwd()
    nodes = None
    try:
        for name in ("head", "other"):
            (tmp_path / name).mkdir()
            os.chdir(tmp_path / name)
            if nodes is None:
                nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
            else:
                nodes.add_node(num_cpus=1)
        os.chdir(before)
        yield str(nodes.address)
    finally:
        os.chdir(before)
        if nodes is not None:
            nodes.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nodes_that_were_started_elsewhere_write_into_the_study(
    cluster: str, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    code = """
from pathlib import Path
from sae_repro.sidebyside import side_by_side
def job(report):
    Path("result").write_text("done")
    return "job"
side_by_side([(job, 1)], what="train", unit="step")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=study, capture_output=True, text=True,
        env={**os.environ, "SAE_REPRO_EXECUTOR": "ray", "RAY_ADDRESS": cluster},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (study / "result").read_text() == "done"
