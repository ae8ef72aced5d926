"""Clones of this repository, as a user has them, and a small study that has run in one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..pipeline.conftest import ROOT, small_text

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PARAMS = """\
root: .
seed: 0
compute: {bits: portable}
corpus:
  source: {kind: files, files: {text.jsonl: PIN}}
  validation: 0.2
  calibration: 0.1
  vocabulary: 300
subject:
  source: {kind: train}
  training:
    {d_model: 16, n_layers: 2, n_heads: 2, context: 32, steps: 60, batch_size: 16, threads: 1}
extract:
  hooks: [blocks.0.hook_resid_post]
  context: 32
  n_tokens: 8_000
  n_calibration_tokens: 1_000
  n_validation_tokens: 2_000
  shard_rows: 4_096
  threads: 1
train: {batch_size: 64, epochs: 1, log_every: 25, checkpoint_every: 100}
evaluate: {fidelity_tokens: 500, metrics: []}
judge: {extremes: 5, uniform: 10, latents: 4}
control: {worlds: []}
compare: {matched_l0: [3], bootstrap: 100}
report: {}
track: {experiment: small}
recipes: {}
cells:
  vanilla: {expansion: 4, penalty: l1, lambda: 1e-2}
  topk: {expansion: 4, activation: topk, k: 3}
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment of a user in `folder`: its checkout's own code, this interpreter."""
    checkout = next(
        (p for p in [folder, *folder.parents] if (p / "src/sae_repro").is_dir()), folder
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC_", "GIT_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout / "src"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        "OMP_NUM_THREADS": "1",
    }


def execute(
    *words: str, cwd: Path, code: int = 0, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in `cwd`; its output, once it ended with `code`."""
    done = subprocess.run(
        words, cwd=cwd, env=environment(cwd) | env, capture_output=True, text=True
    )
    assert done.returncode == code, (
        f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


@pytest.fixture(scope="session")
def run() -> Run:
    """`run(*words, cwd=folder, code=0, NAME=value…)`: a command that must end with `code`."""
    return execute


def commit(folder: Path, message: str) -> None:
    """Commit everything that git does not ignore."""
    execute("git", "add", "-A", cwd=folder)
    execute("git", "commit", "-q", "--allow-empty", "-m", message, cwd=folder)


def clone(source: Path, folder: Path) -> Path:
    """`git clone`, with an author for commits."""
    execute("git", "clone", "-q", str(source), str(folder), cwd=source)
    execute("git", "config", "user.name", "A User", cwd=folder)
    execute("git", "config", "user.email", "user@example.org", cwd=folder)
    return folder


@pytest.fixture(scope="session")
def repository_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository with its uncommitted changes; no artifacts, no DVC cache.

    HEAD is the working tree as it is; HEAD~1 differs in compare.bootstrap. Copy it before you
    change it.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository here to clone")
    folder = clone(ROOT, tmp_path_factory.mktemp("repository") / "clone")
    _take_working_tree(folder)
    params = folder / "params.yaml"
    now = params.read_text(encoding="utf-8")
    params.write_text(now.replace("bootstrap: 1000", "bootstrap: 900"), encoding="utf-8")
    commit(folder, "Before")
    params.write_text(now, encoding="utf-8")
    commit(folder, "The working tree")
    return folder


def _take_working_tree(folder: Path) -> None:
    """What git would commit of the working tree, in place of what it has in `folder`."""
    for path in folder.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    listed = execute("git", "ls-files", "-coz", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.is_file():  # neither: deleted, not yet committed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target, follow_symlinks=False)


@pytest.fixture(scope="session")
def finished_clone(repository_clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose root study is a small one that has run to its end, committed.

    Copy it (`copied`) before you change it.
    """
    folder = tmp_path_factory.mktemp("finished") / "clone"
    shutil.copytree(repository_clone, folder, symlinks=True)
    params = PARAMS.replace("PIN", small_text(folder / "text.jsonl"))
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    # what those of real models computed is not here, and DVC would ask for it
    for pipeline in (folder / "studies").glob("*/dvc.yaml"):
        shutil.rmtree(pipeline.parent)
    commit(folder, "A small study")
    execute("dvc", "repro", cwd=folder)
    commit(folder, "Its results")
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """`copied(finished_clone)`: a copy that the test may change."""

    def copy(source: Path) -> Path:
        folder = tmp_path / "copy"
        # by cp: cached files are links of one inode, and read-only
        execute("cp", "-a", str(source), str(folder), cwd=tmp_path)
        return folder

    return copy
