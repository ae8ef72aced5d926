"""Transcoders after a whole small study: predictions of another hook, measured as SAEs are."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, load
from sae_repro.files import read_json
from sae_repro.readers.shards import ActivationStore
from sae_repro.readers.subject import load_subject

from ..pipeline.conftest import small_text
from ..pipeline.in_process import carry_out, study

INPUT, TARGET = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
CELLS: dict[str, Any] = {
    "transcoder": {"hook": INPUT, "target_hook": TARGET, "expansion": 4, "activation": "batchtopk",
                   "k": 3},
    "skip": {"hook": INPUT, "target_hook": TARGET, "skip": True, "expansion": 4,
             "activation": "topk", "k": 3},
    "sae": {"hook": INPUT, "expansion": 4, "activation": "topk", "k": 3},
}  # fmt: skip
TRANSCODERS = ("transcoder", "skip")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """artifacts/ of a study of transcoders and an SAE after `evaluate`."""
    folder = tmp_path_factory.mktemp("transcoders")
    here = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAE_REPRO_JOBS", "1")
            declared = study(small_text(folder / "text.jsonl"))
            declared["extract"] |= {"hooks": [INPUT, TARGET]}
            declared["evaluate"] |= {"metrics": ["structure", "dictionary", "ablation", "steering"]}
            declared |= {"cells": CELLS}
            carry_out(declared, "corpus", "subject", "extract", "train", "evaluate")
            yield folder / "artifacts"
    finally:
        os.chdir(here)


def measured(artifacts: Path, name: str) -> dict[str, Any]:
    return dict(read_json(artifacts / "evaluate" / name / "metrics.json"))


def prediction(sae: SAE, x: torch.Tensor) -> torch.Tensor:
    return sae.with_skip(sae.decode(sae.encode(x)), x)


@pytest.mark.parametrize("name", TRANSCODERS)
def test_what_is_unexplained_is_the_targets(name: str, finished: Path) -> None:
    store = ActivationStore(finished / "extract")
    x, y = (torch.from_numpy(store.activations(h, "validation").whole()) for h in (INPUT, TARGET))
    y_hat = prediction(load(finished / "train" / name), x)
    fvu = float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum())
    metrics = measured(finished, name)["metrics"]
    assert metrics["fvu"] == pytest.approx(fvu, rel=1e-4)
    assert metrics["mse_per_dim"] == pytest.approx(float((y - y_hat).square().mean()), rel=1e-4)
    assert 0 < metrics["l0"] <= 3.5


@pytest.mark.parametrize("name", TRANSCODERS)
def test_the_prediction_is_spliced_in_at_the_target(name: str, finished: Path) -> None:
    """As in a pass of the whole model that reads its input live."""
    sae, subject = load(finished / "train" / name), load_subject(finished / "subject")
    windows = {
        part: torch.from_numpy(np.load(finished / "extract/windows" / f"{part}.npy"))
        for part in ("tokens", "mask")
    }
    mask = windows["mask"].bool()
    rows = int(np.searchsorted(mask.sum(1).cumsum(0).numpy(), 200)) + 1
    tokens, mask = windows["tokens"][:rows].long(), mask[:rows]
    seen: dict[str, torch.Tensor] = {}

    def read(value: Any, hook: Any) -> None:
        seen["x"] = value

    def splice(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        value[mask] = prediction(sae, seen["x"][mask])
        return value

    with torch.no_grad():
        logits: Any = subject.run_with_hooks(tokens, fwd_hooks=[(INPUT, read), (TARGET, splice)])
    valid = mask[:, :-1] & mask[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][valid], tokens[:, 1:][valid])
    metrics = measured(finished, name)["metrics"]
    assert metrics["ce_sae"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["ce_sae"] != pytest.approx(metrics["ce_clean"], rel=1e-5)


def test_every_metric_of_saes_is_measured(finished: Path) -> None:
    of_sae, of_skip = measured(finished, "sae"), measured(finished, "skip")
    assert of_skip["metrics"].keys() == of_sae["metrics"].keys()
    # of what is read, which is the same
    assert of_skip["input_offset"] == of_sae["input_offset"]
