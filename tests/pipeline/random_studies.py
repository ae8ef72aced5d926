"""Whole studies from a seed, of a small model and text: choices of every section that runs."""

import random
from collections.abc import Mapping
from itertools import islice
from typing import Any, get_args

import numpy as np

from sae_repro.params.evaluate import Chosen
from sae_repro.params.hooks import HOOKS

from ..params.studies import accepted
from ..train.random_cells import random_cells

SECTIONS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "extract": {
        "context": (2, 5, 32), "prepend_bos": (True, False), "n_tokens": (600, 2000, 5000),
        "n_calibration_tokens": (1, 100, 300), "n_validation_tokens": (10, 300, 600, 10**12),
        "pooling": ("token", "token", "token", "document_mean"), "dtype": ("float16", "float32"),
        "batch_size": (1, 7, 64), "shard_rows": (256, 300, 65_536),
    },
    "train": {
        "batch_size": (16, 64, 200), "epochs": (1, 2), "log_every": (1, 10, 10**12),
        "checkpoint_every": (1, 10, 10**12),
    },
    "evaluate": {
        "batch_size": (1, 64, 4096), "dead_threshold": (0.0, 0.07, 1e300),
        "fidelity_tokens": (1, 100, 10**12), "structure_tokens": (1000, 10**12),
        "references": ((1,), (1, 10), (3, 3, 7)), "top_contexts": (1, 10, 1000),
        "quantiles": (2, 5, 20), "contexts_per_quantile": (1, 3, 50),
        "context_tokens": (0, 1, 12, 128),
    },
    "judge": {
        "concept_share": (1e-300, 0.7, 1.0), "extremes": (1, 5, 12), "uniform": (1, 10, 40),
        "latents": (1, 4), "specificity_quantiles": (1, 3),
    },
    "compare": {"matched_l0": ((3.0,), (1e-9, 2.0, 1e9)), "bootstrap": (100, 137)},
    "control": {"worlds": ((), (), (), (), ("two_atoms",), ("oracle",))},
}  # fmt: skip
"""Values by section and key; a key is left out as often as not, a value that is refused always."""


def random_whole_study(seed: int, base: Mapping[str, Any], cells: int) -> dict[str, Any]:
    """`base` with values of `SECTIONS` and of hooks, and so many cells on them; accepted."""
    rng = random.Random(seed)
    study = dict(base)
    training = study["subject"]["training"]
    names = [f"blocks.{layer}.{hook}" for layer in range(training["n_layers"]) for hook in HOOKS]
    hooks = rng.sample(names, rng.choice([1, 2, 3]))
    untrained = rng.sample(names, rng.choice([0, 0, 1]))
    study["extract"] = {**study["extract"], "hooks": hooks, "untrained_hooks": untrained}
    study["evaluate"] = {
        **study["evaluate"], "metrics": rng.sample(get_args(Chosen), rng.randrange(7)),
    }  # fmt: skip
    study["seed"] = rng.choice([0, 1, 2**32, 2**63 - 1])
    study["control"] = {**study["control"], "seeds": 1, "oracle_steps": 2, "tree_steps": 2}
    for section, keys in SECTIONS.items():
        for key, values in keys.items():
            if rng.random() < 0.5:
                value = rng.choice(values)
                changed = {**study, section: {**study[section], key: value}}
                if accepted(changed):
                    study = changed
    steps = study["train"]["epochs"] * study["extract"]["n_tokens"] // study["train"]["batch_size"]
    all_hooks = (*hooks, *(f"untrained/{hook}" for hook in untrained))
    drawn = random_cells(np.random.default_rng(seed), all_hooks, training["d_model"], steps)
    return {**study, "cells": {f"cell{n}": cell for n, cell in enumerate(islice(drawn, cells))}}
