"""A study of a model of 8 dimensions, its stages run in this process: seconds for all of them."""

import importlib
from typing import Any, get_args

from sae_repro.params.evaluate import Chosen
from sae_repro.stage import CHECKOUT, StageContext

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre")
D_IN, STEPS = 8, 31
ORDINARY = {
    "topk": {"expansion": 4, "activation": "topk", "k": 3, "seeds": [0, 1]},
    "batchtopk": {"expansion": 4, "activation": "batchtopk", "k": 3, "prefixes": "random"},
    **{f"relu-{n}": {"expansion": 4, "penalty": "l1", "lambda": lam}
       for n, lam in enumerate((1e-3, 1e-2, 1e-1))},
    "neurons": {"baseline": "neurons"},
}  # fmt: skip


def study(pin: str, **extract: Any) -> dict[str, Any]:
    """params.yaml of a model of 8 dimensions and as good as no training."""
    return {
        "root": ".", "seed": 0, "compute": {},
        "corpus": {"source": {"kind": "files", "files": {"text.jsonl": pin}}, "validation": 0.2,
                   "calibration": 0.1, "vocabulary": 300},
        "subject": {"source": {"kind": "train"},
                    "training": {"d_model": D_IN, "n_layers": 2, "n_heads": 2, "context": 32,
                                 "steps": 5, "batch_size": 4, "threads": 1}},
        "extract": {"hooks": [*HOOKS], "context": 32, "n_tokens": 2000, "threads": 1,
                    "n_calibration_tokens": 300, "n_validation_tokens": 600, **extract},
        "train": {"batch_size": 64, "epochs": 1, "log_every": 10, "checkpoint_every": 10},
        "evaluate": {"fidelity_tokens": 200, "metrics": [*get_args(Chosen)], "references": [1, 10],
                     "structure_tokens": 1000},
        "judge": {"extremes": 5, "uniform": 10, "latents": 4},
        "control": {"worlds": []}, "compare": {"matched_l0": [3], "bootstrap": 100}, "report": {},
        "track": {"experiment": "small"}, "recipes": {}, "cells": ORDINARY,
    }  # fmt: skip


def carry_out(declared: dict[str, Any], *stages: str) -> None:
    """Run stages in the working folder."""
    for name in stages:
        own = declared
        if name == "corpus":  # dvc.yaml declares no more of the subject to it
            own = {**declared, "subject": {"source": declared["subject"]["source"]}}
        importlib.import_module(f"sae_repro.{name}").run(StageContext(name, own, CHECKOUT))
