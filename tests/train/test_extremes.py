"""Any valid cell trains or fails by name: extreme values, few latents, degenerate activations."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import load
from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params.axes import ACTIVATIONS, PREFIXES, REVIVALS
from sae_repro.stage import StageContext
from sae_repro.train import run

from .random_cells import random_cells

HOOK, D_IN, STEPS = "blocks.0.hook_resid_post", 4, 16
SETTINGS = {"batch_size": 32, "epochs": 1, "log_every": 5, "checkpoint_every": 6}

Stage = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def stage(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    """Runs the stage on `cells`, on `train` activations or ordinary ones; each SAE's train.json."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")

    def go(
        cells: dict[str, Any], train: np.ndarray | int = 32 * STEPS, **settings: Any
    ) -> dict[str, dict[str, Any]]:
        make_store(name="artifacts/extract", d_in=D_IN, train=train)
        declared = {"seed": 0, "train": SETTINGS | settings, "recipes": {}, "cells": cells}
        run(StageContext("train", declared))
        folder = Path("artifacts/train")
        records = sorted(folder.rglob("train.json"))
        return {path.parent.relative_to(folder).as_posix(): read_json(path) for path in records}

    return go


def check(records: dict[str, dict[str, Any]]) -> None:
    """Each SAE is there and finite, or says why it is not."""
    for name, record in records.items():
        folder = Path("artifacts/train") / name
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        assert all(isinstance(json.loads(row), dict) for row in rows)
        if record["status"] == "ok":
            weights = load(folder).weights.named()
            assert all(tensor.isfinite().all() for tensor in weights.values()), name
        else:
            assert record["status"] == "failed"
            assert record["reason"]
            assert not (folder / "sae_weights.safetensors").exists()


@pytest.mark.parametrize("seed", range(3))
def test_random_cells_with_extreme_values_train_or_fail_by_name(stage: Stage, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = dict(enumerate(islice(random_cells(rng, (HOOK,), D_IN, STEPS), 12)))
    records = stage({f"cell{n}": cell for n, cell in cells.items()})
    check(records)
    assert {name.partition("/")[0] for name in records} == {f"cell{n}" for n in cells}


TOPK = {"expansion": 2, "activation": "topk", "k": 2}
RELU = {"expansion": 2, "penalty": "l1", "lambda": 1e-3}
OVERFLOWING = {
    "gated": {"expansion": 2, "activation": "gated", "penalty": "l1", "lambda": 1e-2, "lr": 300.0},
    "lambda": {**RELU, "lambda": 3e38, "expansion": 16},
    "resampled": {**RELU, "lr": 1e30, "grad_clip": None, "revival": "resample",
                  "resample_every": 1},
    "lr": {**TOPK, "lr": 1e38, "grad_clip": None},
}  # fmt: skip


def test_a_cell_that_overflows_fails_and_the_others_finish(stage: Stage) -> None:
    records = stage({**OVERFLOWING, "sound": TOPK})
    check(records)
    assert records.pop("sound")["status"] == "ok"
    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(
        OVERFLOWING, "failed"
    )


def test_weights_that_only_the_last_step_breaks_are_a_failure(stage: Stage) -> None:
    cell = {**TOPK, "lr": 3e38, "grad_clip": None, "lr_warmup": 0.0, "lr_decay": 0.0,
            "decoder": "free"}  # fmt: skip
    record = stage({"cell": cell}, train=32)["cell"]
    assert record["steps"] == 1
    assert record["reason"].startswith("not finite after the last step: ")


SPARSE = {
    "k": {"k": 1},
    "penalty": {"penalty": "l1", "lambda": 1e-3},
}


@pytest.mark.parametrize("latents", [1, 2])
def test_few_latents_of_every_kind_can_be_trained_and_saved(stage: Stage, latents: int) -> None:
    def sparse(activation: str) -> dict[str, Any]:
        return {"activation": activation, **SPARSE[ACTIVATIONS[activation].l0_set_by]}

    cells = {name: sparse(name) for name in ACTIVATIONS}
    cells |= {f"prefixes-{name}": {**sparse("batchtopk"), "prefixes": name}
              for name in PREFIXES if name not in ("none", "fixed")}  # fmt: skip
    cells |= {f"revival-{name}": {**sparse("relu"), "revival": name,
                                  **({"resample_every": 2} if row.resamples else {})}
              for name, row in REVIVALS.items() if name != "none"}  # fmt: skip
    cells |= {"baseline": {"baseline": "untrained", **sparse("batchtopk")}}
    records = stage({name: {"expansion": latents / D_IN, **cell} for name, cell in cells.items()})
    check(records)
    assert {record["status"] for record in records.values()} == {"ok"}
    for name, record in records.items():
        sae = load(Path("artifacts/train") / name)
        assert record["d_sae"] == sae.d_sae == latents
        assert sae.weights.W_enc.data_ptr() != sae.weights.W_dec.data_ptr()


def test_one_latent_learns_encoder_and_decoder_apart(stage: Stage) -> None:
    """They start as transposes, which are one memory where there is one latent."""
    cell = {"expansion": 1 / D_IN, "penalty": "l1", "lambda": 1e-3}
    stage({"cell": cell})
    weights = load(Path("artifacts/train/cell")).weights
    assert not torch.allclose(weights.W_enc, weights.W_dec.T)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({"activation": "topk", "k": 9}, r"cells\.cell\.k = 9: allowed are 1 … 8"),
        ({"penalty": "l1", "lambda": 1.0, "target_l0": 9}, r"target_l0 = 9: allowed are at most 8"),
        ({"activation": "topk", "k": 1, "expansion": 0.2}, r"expansion = 0\.2: no latent left"),
    ],
)
def test_a_width_that_no_cell_can_have_is_refused_before_any_is_trained(
    stage: Stage, cell: dict[str, Any], says: str
) -> None:
    with pytest.raises(StudyError, match=says):
        stage({"sound": TOPK, "cell": {"expansion": 2, **cell}})
    assert not Path(".sae-repro/cells").exists()


RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((32 * STEPS, D_IN))
DEGENERATE = {
    "zero": 0 * ROWS,
    "constant": 0 * ROWS + 2.5,
    "constant but for rounding": 2.5 * (1 + 1e-7 * (ROWS > 0)),
    "rank one": ROWS[:, :1] * np.ones(D_IN),
    "one coordinate alone": ROWS * [1, 0, 0, 0],
    "one coordinate dominates": ROWS * [1e6, 1, 1, 1],
    "huge": ROWS * 1e37,
    "tiny": ROWS * 1e-38,
    "mostly zero": ROWS * (RNG.random((len(ROWS), 1)) < 0.02),
}


@pytest.mark.parametrize("kind", DEGENERATE)
def test_activations_without_variety_end_in_an_sae_or_a_named_failure(
    stage: Stage, kind: str
) -> None:
    common = {"expansion": 2}
    cells = {
        "relu": {**common, "penalty": "l1", "lambda": 1e-2, "revival": "resample",
                 "resample_every": 4},
        "topk": {**common, "activation": "topk", "k": 2, "revival": "auxk", "dead_tokens": 100},
        "batchtopk": {**common, "activation": "batchtopk", "k": 2, "prefixes": "random"},
        "jumprelu": {**common, "activation": "jumprelu", "penalty": "l0", "lambda": 1e-2},
        "gated": {**common, "activation": "gated", "penalty": "l1", "lambda": 1e-2, "target_l0": 2},
        "neurons": {"baseline": "neurons"}, "pca": {"baseline": "pca"},
        "untrained": {"baseline": "untrained", "expansion": 2, "activation": "batchtopk", "k": 2},
    }  # fmt: skip
    records = stage(cells, DEGENERATE[kind].astype(np.float32))
    check(records)
    assert records.keys() == cells.keys()
    if kind == "zero":
        trained = {"relu", "topk", "batchtopk", "jumprelu", "gated"}
        assert {"0: there is nothing to learn" in records[n]["reason"] for n in trained} == {True}


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({**RELU, "revival": "resample", "resample_every": 17},
         ["never resampled: resample_every 17, the last one is due by step 12 of 16"]),
        ({**RELU, "revival": "resample", "resample_every": 9, "resample_until": 0.5},
         ["never resampled: resample_every 9, the last one is due by step 8 of 16"]),
        ({**RELU, "revival": "resample", "resample_every": 8, "resample_until": 0.5}, []),
        ({**TOPK, "revival": "auxk"},
         ["auxk never acted: dead_tokens 10,000,000, training has 480"]),
        ({**TOPK, "revival": "auxk", "dead_tokens": 480}, []),
        ({**RELU, "target_l0": 2, "lambda_warmup": 1.0},
         ["λ never steered: lambda_warmup takes all 16 steps"]),
        ({**RELU, "target_l0": 2, "lambda_warmup": 0.9}, []),
        ({**RELU, "lr_warmup": 0.06}, ["no lr_warmup: 0.06 of 16 steps is no more than one"]),
        (RELU, []),
        ({"expansion": 0.25, "activation": "batchtopk", "k": 1, "prefixes": "random"},
         ["no prefixes: one latent has none"]),
    ],
)  # fmt: skip
def test_what_was_asked_for_and_never_happened_is_a_remark(
    stage: Stage, cell: dict[str, Any], says: list[str]
) -> None:
    record = stage({"cell": cell})["cell"]
    assert record["status"] == "ok"
    assert record["unreached"] == says
