"""Identities of cells, from which keys and all randomness are drawn, never move."""

import pytest

from sae_repro.files import digest
from sae_repro.params import Cell

PINNED = {
    "topk": ({"expansion": 8.0, "activation": "topk", "k": 16}, "4649a22a81d04570"),
    "l1": (
        {"expansion": 2.0, "penalty": "l1", "lambda": 0.5, "target_l0": 8.0, "seed": 3},
        "9263f8fff129cad2",
    ),
    "fixed": (
        {
            "expansion": 4.0,
            "activation": "batchtopk",
            "k": 4,
            "prefixes": "fixed",
            "prefix_shares": [0.25, 0.75],
            "order": "contribution",
        },
        "340d5e63cc24db2d",
    ),
    "random": (
        {
            "expansion": 4.0,
            "activation": "topk",
            "k": 4,
            "prefixes": "random",
            "n_prefixes": 5,
            "prefix_alpha": 1.0,
            "revival": "auxk",
            "dead_tokens": 1000,
            "lr": 1e-3,
        },
        "56b0c589c12b7cf8",
    ),
    "basis": ({"baseline": "pca", "hook": "blocks.0.hook_resid_post"}, "aee65b64beac39d9"),
}
"""By name: a cell, and the digest of its identity as it was when the cell's file was one class."""


@pytest.mark.parametrize("name", PINNED)
def test_an_identity_is_what_it_was(name: str) -> None:
    choices, pinned = PINNED[name]
    assert digest(Cell.model_validate(choices).identity())[:16] == pinned
