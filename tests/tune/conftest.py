"""A study on tiny activations whose stage `tune` runs in a second or two, here or in a process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from sae_repro.contents import seal
from sae_repro.files import read_json, sha256_file, write_json
from sae_repro.stage import StageContext, declared_params
from sae_repro.tune import run

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = Path("tune/dvc.yaml")
D = 8
HOOK = "blocks.0.hook_resid_post"

PARAMS = """\
root: .
seed: 0
compute: {bits: portable}
corpus: {source: {kind: stories, n_documents: 900}}
subject:
  source: {kind: train}
  training: {d_model: 8, n_layers: 1, n_heads: 1, context: 21, steps: 1, batch_size: 1}
extract: {hooks: [blocks.0.hook_resid_post], context: 21, n_tokens: 4096}
train: {batch_size: 64, log_every: 8, checkpoint_every: 16}
evaluate: {metrics: []}
judge: {}
control: {}
compare: {}
report: {}
track: {}
recipes: {}
cells:
  # a comment that stays
  own:  {expansion: 2, activation: topk, k: 3}
"""

SPACE: dict[str, Any] = {
    "trials": 10,
    "batch": 4,
    "all": {
        "expansion": {"values": [2, 4]},
        "lr": {"low": 1e-3, "high": 1e-1, "log": True},
    },
    "recipes": {
        "topk": {
            "activation": "topk",
            "k": {"low": 1, "high": 6},
            "prefixes": {"values": ["none", "fixed"]},
        },
        "vanilla": {"penalty": "l1", "lambda": {"low": 1e-3, "high": 1.0, "log": True}},
    },
}


NO_FIGURES = """
import sae_repro.tune.figures
sae_repro.tune.figures.write_figures = lambda *_, **__: None
"""


@pytest.fixture(autouse=True)
def deterministic_only_here() -> Iterator[None]:
    """Trials switch torch to deterministic kernels for their process, which here is the tests'."""
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


def make_poisoned(extract: Path, split: str, *, leave_out: bool = False) -> None:
    """Change all activations of a split, or leave the split out; the folder is whole again."""
    manifest = read_json(extract / "manifest.json")
    for entry in manifest["hooks"][HOOK]["shards"][split]:
        x = np.load(extract / entry["file"])
        np.save(extract / entry["file"], x[::-1] * 3 + 1)
        entry["sha256"] = sha256_file(extract / entry["file"])
    if leave_out:
        del manifest["hooks"][HOOK]["shards"][split], manifest["tokens"][split]
    write_json(extract / "manifest.json", manifest)
    seal(extract)


@dataclass
class TinyStudy:
    """A study's folder with all that `tune` reads."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def space(self, **changes: Any) -> None:
        """Write tune/params.yaml: `SPACE` with `changes`."""
        with (self.folder / "tune/params.yaml").open("w") as file:
            space = {**SPACE, **changes}
            YAML().dump({"tune": {k: v for k, v in space.items() if v is not None}}, file)

    def tune(self) -> str:
        """Run the stage in this process, one trial after the other; trials.csv."""
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.setenv("SAE_REPRO_JOBS", "1")
        run(StageContext("tune", declared_params("tune", PIPELINE)))
        return self.trials

    def start(self, jobs: int, patch: str = "") -> "subprocess.Popen[str]":
        """The stage's script in a process group of its own, after the Python code `patch`."""
        script = str(ROOT / "stages/tune.py")
        code = f"{NO_FIGURES}\n{patch}\nimport runpy; runpy.run_path({script!r})"
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=self.folder, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "DVC_STAGE": "tune/dvc.yaml:tune", "SAE_REPRO_JOBS": str(jobs),
                 "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip

    def outputs(self) -> tuple[str, str]:
        """trials.csv and best.yaml as text."""
        return self.trials, (self.folder / "tune/best.yaml").read_text()

    @property
    def trials(self) -> str:
        """trials.csv as text."""
        return (self.folder / "tune/trials.csv").read_text()

    def copy(self, name: str, *without: str) -> "TinyStudy":
        """This study elsewhere, some of its files left out."""
        folder = self.folder.with_name(name)
        shutil.copytree(self.folder, folder, ignore=lambda _, names: set(without) & set(names))
        return TinyStudy(folder, self.monkeypatch)


@pytest.fixture
def study(
    tmp_path: Path, make_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> TinyStudy:
    """A study in which nothing was tuned yet."""
    extract = make_store(name="study/artifacts/extract", d_in=D)
    folder = extract.parents[1]
    (folder / "params.yaml").write_text(PARAMS)
    shutil.copy(ROOT / "requirements.lock", folder)
    (folder / "tune").mkdir()
    shutil.copy(ROOT / PIPELINE, folder / PIPELINE)
    # half a minute of every run here; they have a test of their own
    monkeypatch.setattr("sae_repro.tune.figures.write_figures", lambda *_, **__: None)
    tiny = TinyStudy(folder, monkeypatch)
    tiny.space()
    return tiny
