"""The blocks of docs/tutorial.md, run one after another as they stand, in a copy of the project."""

import json
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from transformers import LlamaConfig, LlamaForCausalLM

from sae_repro.autoencoders import load
from sae_repro.corpus.tokenizers import word_level
from sae_repro.files import read_json, sha256_file
from sae_repro.stories import generator

from .conftest import ROOT, Checkout
from .in_process import carry_out

PAGE = (ROOT / "docs/tutorial.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
ON_MEANS, ON_A_TOY = (FENCE.findall(part) for part in PAGE.split("## 5."))
TABLE = "    table:"
FIVE = ("five-l1", "five-topk")
SHELL = 'sae-repro() { "$PYTHON" -m sae_repro.cli "$@"; }\n'
"""The command of this very environment, whether or not it is on the path."""


def blocks(language: str, *words: str) -> list[str]:
    """The toy's blocks in a language that hold all of `words`."""
    return [text for kind, text in ON_A_TOY if kind == language and all(w in text for w in words)]


def follow(checkout: Checkout, kind: str, text: str) -> str:
    """Do what a block asks a reader for; what it printed."""
    match kind:
        case "python":
            return run(checkout, sys.executable, "-c", text)
        case "yaml":
            add_cells(checkout.folder / "studies/toy/params.yaml", text)
        case "" if text.startswith(TABLE):
            path = checkout.folder / "studies/means/params.yaml"
            before, split, after = path.read_text().partition("  validation:")
            path.write_text(before + text + split + after)
        case "":
            return run(checkout, "bash", "-ec", SHELL + text)
        case _:
            raise AssertionError(f"a block of another language: {kind}")
    return ""


def run(checkout: Checkout, *command: str) -> str:
    environment = checkout.environment(PYTHON=sys.executable, MPLBACKEND="agg", HF_HUB_OFFLINE="1")
    done = subprocess.run(command, cwd=checkout.folder, env=environment, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def add_cells(path: Path, text: str) -> None:
    yaml = YAML()
    study = yaml.load(path)
    study["cells"].update(yaml.load(text)["cells"])
    yaml.dump(study, path)


def bring_model_and_text(folder: Path, shared: Path) -> None:
    """The page's path/to/model and stories.jsonl: real ones, or a model on random weights."""
    if shared.is_dir():
        shutil.copytree(shared / "models/stories260k", folder / "path/to/model")
        with (shared / "data/tinystories/samples.jsonl").open() as lines:
            (folder / "stories.jsonl").write_text("".join(islice(lines, 400)))
        return
    shutil.copy(folder / "text.jsonl", folder / "stories.jsonl")
    tokenizer = word_level(generator.vocabulary())
    tokenizer.save_pretrained(folder / "path/to/model")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
        )
    ).save_pretrained(folder / "path/to/model")


@pytest.fixture
def checkout(fresh: Checkout, tmp_path: Path) -> Checkout:
    """A checkout of the project in which nothing has run."""
    return fresh.copy(tmp_path / "checkout")


def follow_all(checkout: Checkout, page: list[tuple[str, str]]) -> None:
    for kind, text in page:
        said = follow(checkout, kind, text)
        assert said.strip() or kind != "python", "a snippet prints what it is about"


@pytest.mark.slow
def test_document_means_become_tables_figures_and_a_page(checkout: Checkout) -> None:
    bring_model_and_text(checkout.folder, ROOT.parent / "shared")
    follow_all(checkout, ON_MEANS)
    means_are_reported(checkout)


def means_are_reported(checkout: Checkout) -> None:
    folder = checkout.folder / "studies/means"
    reports = folder / "reports"
    promised = re.findall(r"`([\w/.-]+\.(?:html|png|md|csv))`", "\n".join(
        line for line in PAGE.splitlines() if line.startswith("| `")))  # fmt: skip
    assert len(promised) >= 8
    for name in promised:
        assert (reports / name).stat().st_size > 0, name
    cells = pd.read_csv(reports / "tables/cells.csv").set_index("cell")
    trained = cells[cells["negative_control"] == "no"]
    # on as few rows as these, a λ may not come to hold its L0 of 8 within the training
    assert len(trained) == 12 and (trained["status"] == "ok").sum() >= 11
    trained = trained[trained["status"] == "ok"]
    (untrained,) = cells.loc[[name for name in cells.index if name.startswith("untrained")], "fvu"]
    few_rows_are_enough = trained.index.str.startswith("topk")
    assert (trained.loc[few_rows_are_enough, "fvu"] < min(1, untrained)).all()
    left_out = "fidelity, monosemanticity, structure, references"
    assert trained["remarks"].str.contains(left_out).all()
    assert left_out in (reports / "tables/cells.md").read_text()
    first_words = {
        json.loads(line)["text"]
        for line in (checkout.folder / "documents.jsonl").read_text().splitlines()
    }
    contexts = pd.read_parquet(
        next((folder / "artifacts/evaluate").glob("topk-*/contexts.parquet"))
    )
    assert set(contexts["token"]) <= first_words
    assert (reports / "explorer/data/index.js").is_file()


@pytest.mark.slow
def test_the_toys_directions_are_drawn_over_the_true_ones(checkout: Checkout) -> None:
    follow_all(checkout, ON_A_TOY)
    toy_is_reported(checkout)


def toy_is_reported(checkout: Checkout) -> None:
    toy = checkout.folder / "studies/toy"
    found_by_the_first(toy / "artifacts")
    assert (checkout.folder / "atoms.png").read_bytes().startswith(b"\x89PNG")
    assert (toy / "reports/index.html").is_file()
    cells = pd.read_csv(toy / "reports/tables/cells.csv").set_index("cell")
    assert set(cells["status"]) == {"ok"} and set(FIVE) <= set(cells.index)


def test_five_latents_find_the_toys_five_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's toy and its cells alone, at the length of training that `new` gives them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    (make,) = blocks("python", 'np.save("toy.npy"')
    exec(make, {})
    (cells,) = (YAML(typ="safe").load(text)["cells"] for text in blocks("yaml"))
    assert tuple(cells) == FIVE
    declared = study({"toy.npy": sha256_file(Path("toy.npy"))}, cells)
    carry_out(declared, "corpus", "subject", "extract", "train", "evaluate")
    found_by_the_first(Path("artifacts"))


def found_by_the_first(artifacts: Path) -> None:
    """Every seed of the first cell has the five directions; the other one has a lower FVU."""
    fvu: dict[str, list[float]] = {}
    for cell in FIVE:
        for seed in (0, 1, 2):
            measured = read_json(artifacts / f"evaluate/{cell}/seed-{seed}/metrics.json")
            fvu.setdefault(cell, []).append(measured["metrics"]["fvu"])
    for seed in (0, 1, 2):
        rows_kd = load(artifacts / f"train/{FIVE[0]}/seed-{seed}").weights.W_dec.numpy()
        cosine = true_atoms() @ rows_kd.T
        assert cosine.shape == (5, 5)
        assert cosine.max(axis=1).min() >= 0.99, cosine
        assert sorted(cosine.argmax(axis=1)) == list(range(5)), "one row for two directions"
    assert max(fvu[FIVE[1]]) < 1e-3 < max(fvu[FIVE[0]]) < 0.12


def true_atoms() -> np.ndarray:
    angle = np.radians(72) * np.arange(5)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def study(files: dict[str, str], cells: dict[str, Any]) -> dict[str, Any]:
    return {
        "root": ".", "seed": 0, "compute": {},
        "corpus": {"source": {"kind": "activations", "files": files}, "validation": 0.1,
                   "calibration": 0.05},
        "subject": {"source": {"kind": "none"}},
        "extract": {"hooks": ["activations"], "threads": 1},
        "train": {"batch_size": 128, "epochs": 10, "log_every": 50, "checkpoint_every": 1000},
        "evaluate": {}, "judge": {}, "control": {"worlds": []}, "compare": {}, "report": {},
        "track": {"experiment": "toy"}, "recipes": {}, "cells": cells,
    }  # fmt: skip
