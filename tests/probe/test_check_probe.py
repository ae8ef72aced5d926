"""`sae-repro check --probe` on a tiny model in which one word is a massive activation."""

import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.cli.studies import pin_inputs
from sae_repro.corpus.tokenizers import byte_pairs
from sae_repro.errors import StudyError

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["cat", "dog", "mat", "sat", "ran", "far", "away", "house", "tree", "bird"]
MASSIVE = "Q"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(120)]
    texts = [f"{text} {MASSIVE} {text}" if n % 4 == 0 else text for n, text in enumerate(texts)]
    (folder / "a.txt").write_text("\n\n".join(texts))
    tokenizer = byte_pairs(texts, 300)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64, bos_token_id=1, eos_token_id=1,
        pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    weights = load_file(folder / "model/model.safetensors")
    massive = tokenizer(f"cat {MASSIVE}").input_ids[-1]
    weights["model.embed_tokens.weight"][massive] *= 1e4
    save_file(weights, folder / "model/model.safetensors", metadata={"format": "pt"})
    shutil.copy(ROOT / "dvc.yaml", folder / "dvc.yaml")
    (folder / "stages").mkdir()
    params: dict[str, Any] = {
        "root": ".", "seed": 0, "compute": {}, "recipes": {},
        "corpus": {"source": {"kind": "files", "files": {"a.txt": "0" * 64}}},
        "subject": {"source": {"kind": "local", "path": "model", "sha256": "0" * 64}},
        "extract": {"hooks": ["blocks.0.hook_resid_post"], "context": 32, "batch_size": 8,
                    "threads": 1, "n_tokens": 2000,
                    "untrained_hooks": ["blocks.0.hook_resid_post"]},
        "train": {"batch_size": 64}, "evaluate": {}, "judge": {}, "control": {}, "compare": {},
        "report": {}, "track": {},
        "cells": {
            "topk": {"expansion": 4, "activation": "topk", "k": 4, "seeds": [0, 1]},
            "on-random-weights": {"expansion": 4, "activation": "topk", "k": 4,
                                  "hook": "untrained/blocks.0.hook_resid_post"},
            "neurons": {"baseline": "neurons"},
        },
    }  # fmt: skip
    YAML().dump(params, folder / "params.yaml")
    pin_inputs(folder)
    return folder


def probed(folder: Path, **extract: Any) -> str:
    yaml = YAML()
    raw = yaml.load(folder / "params.yaml")
    raw["extract"] |= extract
    yaml.dump(raw, folder / "params.yaml")
    result = CliRunner().invoke(app, ["check", str(folder), "--probe"])
    assert result.exit_code == 0, result.exception
    return result.output


def test_a_probe_tells_of_massive_activations_and_of_what_the_study_takes(study: Path) -> None:
    before = sorted(path for path in study.rglob("*") if ".sae-repro" not in path.parts)
    lines = probed(study).splitlines()
    assert sorted(p for p in study.rglob("*") if ".sae-repro" not in p.parts) == before
    starts = [line.split()[0] for line in lines if re.match(r"(true|false) ", line)]
    assert starts == ["true", "false"]
    norms = next(line for line in lines if line.startswith("blocks.0.hook_resid_post")).split()
    median, largest, sinks = (float(norms[n].replace(",", "").rstrip("%")) for n in (1, 3, 4))
    assert largest > 100 * median and 0 < sinks < 5
    said = next(line for line in lines if line.startswith("extract.norm_limit = 10 leaves out"))
    assert "later:" in said and f"{sinks:.2f}%" in said
    rate = next(line for line in lines if line.startswith("extract: "))
    # float32 of 16 dimensions at the hook and on random weights, 12 bytes of the index
    assert "all 152,000: " in rate and f"shards of {152_000 * (2 * 64 + 12) / 1e6:.0f} MB" in rate
    assert any(line.startswith("train: 3 SAEs, ") for line in lines), "a step of topk, for all"
    assert any(line.startswith("memory: ") for line in lines)


def test_a_probe_of_a_rolling_buffer_tells_what_is_on_the_disk_at_once(
    study: Path, tmp_path: Path
) -> None:
    shutil.copytree(study, tmp_path / "rolling")
    output = probed(tmp_path / "rolling", n_tokens=100_000, buffer=12_800, keep="buffer")
    # two rounds, and the other splits' 150,000
    shards = (2 * 12_800 + 150_000) * (2 * 64 + 12)
    assert "all 250,000: " in output and f"shards of {shards / 1e6:.0f} MB" in output
    assert "train: extracts all rounds but the first again, once for each epoch" in output


def test_a_probe_reads_heads(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "heads")
    hooks = ["blocks.0.hook_resid_post", "blocks.0.attn.hook_z", "blocks.0.attn.hook_z.1"]
    output = probed(tmp_path / "heads", hooks=hooks)
    assert all(re.search(rf"^{re.escape(hook)} +\d", output, re.M) for hook in hooks)
    assert "rows start with " in output


def test_a_probe_of_a_context_too_short_to_compare_says_so(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "short")
    output = probed(tmp_path / "short", context=3, n_tokens=1000)
    assert "what rows start with can't be compared" in output


def test_massive_activations_that_nothing_leaves_out_are_warned_of(study: Path) -> None:
    output = probed(study, norm_limit=None)
    assert "extract.norm_limit: null lets them into training; set extract.norm_limit: 10" in output
    assert "warning: " in output and "times the median at blocks.0.hook_resid_post" in output


def test_a_subject_that_is_not_trained_yet_is_no_fault_of_the_study(
    study: Path, tmp_path: Path
) -> None:
    yaml = YAML()
    raw = yaml.load(study / "params.yaml")
    raw["subject"] = {"source": {"kind": "train"}, "training": {"context": 64}}
    (tmp_path / "stages").mkdir()
    for name in ("a.txt", "dvc.yaml"):
        shutil.copy(study / name, tmp_path / name)
    yaml.dump(raw, tmp_path / "params.yaml")
    result = CliRunner().invoke(app, ["check", str(tmp_path), "--probe"])
    assert isinstance(result.exception, StudyError)
    assert "no subject to probe yet; `dvc repro" in str(result.exception)
    assert "\n" not in str(result.exception)
