"""Crosscoders after a whole small study: one code for several hooks, measured at each of them."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sae_repro.autoencoders import Crosscoder, crosscoder_of, load
from sae_repro.files import read_json
from sae_repro.readers.joined import JoinedStore, LevelledStore
from sae_repro.readers.subject import load_subject

from ..pipeline.conftest import small_text
from ..pipeline.in_process import carry_out, study

FIRST, SECOND = "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"
BOTH = f"{FIRST} + {SECOND}"
METRICS = ["monosemanticity", "structure", "dictionary", "references", "consistency", "ablation"]
CELLS: dict[str, Any] = {
    "cross": {"hooks": [FIRST, SECOND], "expansion": 2, "activation": "batchtopk", "k": 3},
    "seeds": {"hooks": [FIRST, SECOND], "expansion": 2, "activation": "topk", "k": 3,
              "seeds": [0, 1]},
    "weighed": {"hooks": [FIRST, SECOND], "expansion": 2, "penalty": "l1_decoder_norm",
                "decoder": "free", "lambda": 0.01},
    "sae": {"hook": FIRST, "expansion": 2, "activation": "topk", "k": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """artifacts/ of a study of crosscoders and an SAE after `evaluate`."""
    folder = tmp_path_factory.mktemp("crosscoders")
    here = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAE_REPRO_JOBS", "1")
            declared = study(small_text(folder / "text.jsonl"))
            declared["extract"] |= {"hooks": [FIRST, SECOND]}
            declared["evaluate"] |= {"metrics": METRICS, "references": [8]}
            declared |= {"cells": CELLS}
            carry_out(declared, "corpus", "subject", "extract", "train", "evaluate")
            yield folder / "artifacts"
    finally:
        os.chdir(here)


def measured(artifacts: Path, name: str) -> dict[str, Any]:
    return dict(read_json(artifacts / "evaluate" / name / "metrics.json"))


def cross_of(artifacts: Path, name: str) -> Crosscoder:
    found = crosscoder_of(load(artifacts / "train" / name))
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["cross", "weighed"])
def test_what_is_unexplained_is_said_of_each_hook_and_of_both(name: str, finished: Path) -> None:
    """From raw activations: of each hook as they are, of both once they are of one loudness."""
    store, cross = LevelledStore(finished / "extract"), cross_of(finished, name)
    x = {h: torch.from_numpy(store.activations(h, "validation").whole()) for h in cross.hooks}
    x_hat, found = cross.decode(cross.encode(x)), measured(finished, name)
    errors, variances = [], []
    for hook, level in zip(cross.hooks, store.levels(BOTH), strict=True):
        error = (x[hook] - x_hat[hook]).double().square().sum()
        variance = (x[hook] - x[hook].mean(0)).double().square().sum()
        assert found["hooks"][hook]["fvu"] == pytest.approx(float(error / variance), rel=1e-3)
        low, high = found["hooks"][hook]["fvu_interval"] or (0, 9)
        assert low <= found["hooks"][hook]["fvu"] <= high
        errors.append(error * level**2)
        variances.append(variance * level**2)
    assert found["metrics"]["fvu"] == pytest.approx(float(sum(errors) / sum(variances)), rel=1e-3)
    assert found["hook"] == BOTH
    assert found["metrics"]["l0"] > 0


def test_each_latents_norms_are_in_a_table(finished: Path) -> None:
    frame = pd.read_parquet(finished / "evaluate/cross/crosscoder.parquet")
    wide = frame.pivot(index="latent", columns="hook", values="share")
    assert list(wide) == [FIRST, SECOND]
    np.testing.assert_allclose(wide.sum(axis=1), 1)
    squares = frame["decoder_norm"].pow(2).groupby(frame["latent"]).sum()
    np.testing.assert_allclose(squares, 1, rtol=1e-5)  # of training's units
    fired = pd.read_parquet(finished / "evaluate/cross/latents.parquet")["n_fired"] > 0
    found = measured(finished, "cross")["hooks"]
    for hook in (FIRST, SECOND):
        assert found[hook]["decoder_share"] == pytest.approx(wide[hook][fired].mean())
        assert found[hook]["latents_owned"] == int((wide[hook][fired] >= 0.9).sum())


def test_all_hooks_are_spliced_at_once(finished: Path) -> None:
    """As in a pass of the whole model in which both hooks hold x̂ of what they were."""
    cross, subject = cross_of(finished, "cross"), load_subject(finished / "subject")
    windows = {
        part: torch.from_numpy(np.load(finished / "extract/windows" / f"{part}.npy"))
        for part in ("tokens", "mask")
    }
    mask = windows["mask"].bool()
    rows = int(np.searchsorted(mask.sum(1).cumsum(0).numpy(), 200)) + 1
    tokens, mask = windows["tokens"][:rows].long(), mask[:rows]
    cache: Any
    with torch.no_grad():
        _, cache = subject.run_with_cache(tokens)
        x_hat = cross.decode(cross.encode({hook: cache[hook][mask] for hook in cross.hooks}))

        def splice(of: str, value: torch.Tensor, hook: Any) -> torch.Tensor:
            value = value.clone()
            value[mask] = x_hat[of]
            return value

        splices: Any = [(hook, partial(splice, hook)) for hook in cross.hooks]
        logits: Any = subject.run_with_hooks(tokens, fwd_hooks=splices)
    valid = mask[:, :-1] & mask[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][valid], tokens[:, 1:][valid])
    metrics = measured(finished, "cross")["metrics"]
    assert metrics["ce_sae"] == pytest.approx(loss.item(), rel=1e-4)
    assert metrics["ce_sae"] != pytest.approx(metrics["ce_clean"], rel=1e-5)
    assert metrics["ce_zero"] != pytest.approx(metrics["ce_clean"], rel=1e-5)


def test_what_needs_one_hook_is_left_out_and_said(finished: Path) -> None:
    of_sae, of_cross = measured(finished, "sae"), measured(finished, "cross")
    said = of_cross["not_measured"]
    assert said == ["not measured, of several hooks at once: references, ablation"]
    missing = of_sae["metrics"].keys() - of_cross["metrics"].keys()
    assert {name.split("_")[0] for name in missing} == {"ablation", "mean"}, missing
    assert measured(finished, "seeds")["metrics"]["pw_mcc"] is not None


def test_training_is_recorded_with_its_hooks(finished: Path) -> None:
    trained = read_json(finished / "train/cross/train.json")
    widths = [JoinedStore(finished / "extract").d_in(hook) for hook in (FIRST, SECOND)]
    assert trained["choices"]["hooks"] == [FIRST, SECOND]
    assert trained["d_in"] == sum(widths)
    metadata = read_json(finished / "train/cross/cfg.json")["metadata"]
    assert metadata["hook_name"] == BOTH
    assert metadata["crosscoder_widths"] == widths
