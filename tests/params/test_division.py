"""Cells in parts: what can't be trained so is refused, with the reason."""

from typing import Any

import pytest
from pydantic import ValidationError

from sae_repro.params import Cell

TOPK: dict[str, Any] = {"activation": "topk", "k": 2, "expansion": 4}
PENALISED: dict[str, Any] = {"expansion": 4, "penalty": "l1", "lambda": 0.01}


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({**TOPK, "activation": "batchtopk", "micro_batches": 2}, "selects over the whole batch"),
        ({**TOPK, "revival": "auxk", "micro_batches": 2}, "residual variance"),
        ({**TOPK, "hooks": ["a", "b"], "micro_batches": 2}, "crosscoders are trained whole"),
        ({**TOPK, "hooks": ["a", "b"], "latent_shards": 2}, "autoencoders of one hook"),
        ({**TOPK, "micro_batches": 2, "latent_shards": 2}, "set one of them"),
        ({**TOPK, "prefixes": "fixed", "latent_shards": 2}, "a prefix lies in the first shards"),
        ({**TOPK, "decoder": "free", "latent_shards": 2}, "norms of rows"),
        ({**PENALISED, "activation": "gated", "latent_shards": 2}, "written for activation"),
    ],
)
def test_what_cannot_be_divided_is_refused(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Cell.model_validate(choices)
    Cell.model_validate({**choices, "micro_batches": 1, "latent_shards": 1})
