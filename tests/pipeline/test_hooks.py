"""SAEs on heads, neurons, the final norm and every layer of a real model: all stages."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.params import load, parse, read_yaml
from sae_repro.preflight import check_inputs
from sae_repro.readers.shards import ActivationStore

from .conftest import ROOT
from .in_process import carry_out

STORIES = ROOT / "studies/stories260k"
HOOKS = {"neurons": ("blocks.2.mlp.hook_post", 172), "heads": ("blocks.1.attn.hook_z", 64),
         "head": ("blocks.1.attn.hook_z.3", 8), "final": ("ln_final.hook_out", 64),
         "keys": ("blocks.3.attn.hook_k", 32), "embedding": ("hook_embed", 64),
         "normed": ("ln_final.hook_normalized", 64),
         "rotated": ("blocks.1.attn.hook_rot_q", 64)}  # fmt: skip
SHOWN = "rotary_emb.hook_in"
"""What is put there changes nothing."""
TOPK = {"expansion": 2, "activation": "topk", "k": 4}


@pytest.fixture
def declared(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A small study of stories260k in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    shutil.copytree(shared / "models/stories260k", "inputs/stories260k")
    shutil.copy(shared / "data/tinystories/samples.jsonl", "inputs")
    study: dict[str, Any] = read_yaml(STORIES / "params.yaml")
    study["corpus"] |= {"validation": 0.2, "calibration": 0.1}
    study["corpus"]["source"]["n_documents"] = 40
    study["extract"] |= {
        "n_tokens": 2_000, "n_calibration_tokens": 300, "n_validation_tokens": 500,
        "untrained_hooks": [], "embeddings_hooks": [], "norm_limit": None,
        "hooks": [*(hook for hook, _ in HOOKS.values()), SHOWN, "blocks.*.hook_resid_post"],
    }  # fmt: skip
    study["train"] |= {"batch_size": 128, "epochs": 1}
    study["evaluate"] |= {"fidelity_tokens": 200, "metrics": [], "only": None}
    study["compare"] = {"matched_l0": [4], "bootstrap": 100}
    study["report"], study["control"], study["recipes"] = {}, {"worlds": []}, {"topk": TOPK}
    study["cells"] = {
        **{name: {"recipe": "topk", "hook": hook} for name, (hook, _) in HOOKS.items()},
        "shown": {"recipe": "topk", "hook": SHOWN},
        "sweep": {"recipe": "topk", "hook": "blocks.0-4.hook_resid_post"},
    }
    return study


def test_saes_on_any_hook_are_trained_compared_and_spliced(declared: dict[str, Any]) -> None:
    study = parse(declared)
    check_inputs(study, Path())
    assert [name for name in study.cells if name.startswith("sweep")] == [
        f"sweep-layer{layer}" for layer in range(5)
    ]
    carry_out(declared, "corpus", "subject", "extract", "train", "evaluate",
              "judge", "control", "compare")  # fmt: skip
    store = ActivationStore(Path("artifacts/extract"))
    for name, (hook, d_in) in HOOKS.items():
        assert store.d_in(hook) == d_in == store.activations(hook, "train").whole().shape[1]
        measured = read_json(Path("artifacts/evaluate") / name / "metrics.json")
        found = measured["metrics"]
        assert measured["counts"]["fidelity_tokens"] >= 100
        assert measured.get("not_measured", []) == []
        assert found["kl"] > 0
        assert found["ce_zero"] != found["ce_clean"] != found["ce_sae"]
    shown = read_json(Path("artifacts/evaluate/shown/metrics.json"))
    assert shown["counts"]["fidelity_tokens"] == 0
    assert (
        "no fidelity: what is put at rotary_emb.hook_in changes no logit"
        in Path("reports/tables/cells.md").read_text()
    )
    heads, head = (
        store.activations(HOOKS[name][0], "validation").whole() for name in ("heads", "head")
    )
    assert np.array_equal(heads[:, 3 * 8 : 4 * 8], head)
    assert Path("reports/figures/layers.png").is_file()


@pytest.mark.parametrize(("hook", "line"), [
    ("blocks.1.attn.hook_zz", "did you mean blocks.1.attn.hook_z"),
    ("ln_final.hook_outt", "did you mean ln_final.hook_out"),
    ("blocks.1.attn.hook_z.8", "its heads are 0 … 7"),
    ("blocks.1.mlp.hook_post.0", "it has no heads"),
    ("blocks.1.attn.hook_pattern", "no vector for each token"),
    ("blocks.1.attn.hook_result", "a run of this model never comes by it"),
    ("blocks.0-5.hook_resid_post", "the model has layers 0 … 4"),
    ("embed.hook_in", "no vector for each token"),
])  # fmt: skip
def test_a_hook_that_the_model_lacks_is_refused_before_compute(
    declared: dict[str, Any], hook: str, line: str
) -> None:
    declared["extract"]["hooks"] = ["blocks.0.hook_resid_post", hook]
    declared["cells"] = {"topk": TOPK}
    with pytest.raises(StudyError, match=line):
        check_inputs(parse(declared), Path())


def test_a_width_is_checked_on_the_cells_own_hook(declared: dict[str, Any]) -> None:
    declared["cells"] = {"head": {**TOPK, "hook": HOOKS["head"][0], "k": 17}}
    with pytest.raises(StudyError, match=r"cells\.head\.k = 17: allowed are 1 … 16"):
        check_inputs(parse(declared), Path())
    declared["cells"] = {"neurons": {**TOPK, "hook": HOOKS["neurons"][0], "k": 300}}
    check_inputs(parse(declared), Path())
    assert load(STORIES / "params.yaml").cells
