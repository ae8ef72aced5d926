"""A small study of its own in a fresh checkout, run by `dvc repro` as a user would."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from sae_repro.files import sha256_file
from sae_repro.params.evaluate import Chosen
from sae_repro.stories import generator

ROOT = Path(__file__).resolve().parents[2]

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
  n_tokens: 20_000
  n_calibration_tokens: 2_000
  n_validation_tokens: 4_000
  shard_rows: 4_096
  threads: 1
train: {batch_size: 64, epochs: 3, log_every: 50, checkpoint_every: 100}
evaluate:
  fidelity_tokens: 1_000
  metrics: [METRICS]
  references: [10]
judge: {extremes: 5, uniform: 10, latents: 4}
control: {worlds: []}
compare: {matched_l0: [3], bootstrap: 100}
report: {}
track: {experiment: small}
recipes: {}
cells:
  vanilla: {expansion: 4, penalty: l1, lambda: 1e-2, lr: 1e-3}
  resample:
    {expansion: 4, penalty: l1, lambda: 5e-2, revival: resample, resample_every: 200, lr: 1e-3}
  matryoshka: {expansion: 4, activation: batchtopk, k: 3, prefixes: random, lr: 1e-3}
"""


@dataclass
class Checkout:
    """A checkout of the project with a small study at its root."""

    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Environment of the pipeline: this checkout's own code, one worker per core."""
        bin_ = Path(sys.executable).parent
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC_"))}
        return {
            **kept,
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **more,
        }

    def start(self, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        """`dvc repro` with `arguments`, in a process group of its own."""
        return subprocess.Popen(
            ["dvc", "repro", *arguments], cwd=self.folder, env=self.environment(**env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def repro(self, *arguments: str, **env: str) -> str:
        """`dvc repro` to its end; its output."""
        process = self.start(*arguments, **env)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def drop_broken_locks(self) -> None:
        """Delete DVC's list of locks where a kill hit DVC as it wrote it (docs/reproduction.md)."""
        locks = self.folder / ".dvc/tmp/rwlock"
        if locks.is_file() and not locks.read_bytes():
            locks.unlink()

    def command(self, *words: str) -> tuple[int, str]:
        """Exit code and output of a command in this checkout."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def ran(self, output: str) -> list[str]:
        """The stages that a run executed, but for `code`, which any edit of src/ runs."""
        ran = [
            line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")
        ]
        return [stage for stage in ran if stage != "code/dvc.yaml:code"]

    def change(self, old: str, new: str) -> None:
        """Edit params.yaml."""
        path = self.folder / "params.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def trained(self) -> set[str]:
        """Keys of the cells that the store has."""
        return {p.parent.name for p in self.folder.glob(".sae-repro/cells/*/train.json")}

    def evaluated(self) -> set[str]:
        """Keys of the evaluations that the store has."""
        return {p.parent.name for p in self.folder.glob(".sae-repro/cells/*/metrics.json")}

    def copy(self, folder: Path, *without: str) -> "Checkout":
        """This checkout elsewhere, some of its folders left out."""
        shutil.copytree(
            self.folder, folder, symlinks=True, ignore=lambda _, names: set(without) & set(names)
        )
        return Checkout(folder)


def small_text(path: Path) -> str:
    """Write 900 stories as JSON lines; the file's SHA-256."""
    stories = generator.generate(900, seed=5)
    words = generator.vocabulary()
    with path.open("w") as file:
        for start, end in zip(stories.starts[:-1], stories.starts[1:], strict=True):
            text = " ".join(words[i] for i in stories.tokens[start:end])
            file.write(json.dumps({"text": text}) + "\n")
    return sha256_file(path)


def new_checkout(folder: Path) -> Checkout:
    """The working tree's files, a text, and the small study; nothing has run yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "src", "stages", "code", "dvc.yaml",
         ".dvc", ".dvcignore", ".gitignore", "requirements.lock"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    pin = small_text(folder / "text.jsonl")
    (folder / "params.yaml").write_text(
        PARAMS.replace("PIN", pin).replace("METRICS", ", ".join(get_args(Chosen)))
    )
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "small study"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return Checkout(folder)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which nothing has run."""
    folder = tmp_path_factory.mktemp("fresh")
    return new_checkout(folder)


@pytest.fixture(scope="session")
def finished(fresh: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The small study after an undisturbed `dvc repro`. Tests copy it before they change it."""
    checkout = fresh.copy(tmp_path_factory.mktemp("finished") / "checkout")
    checkout.repro()
    return checkout
