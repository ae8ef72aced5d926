"""Cells at several hooks: a transcoder for each layer, crosscoders, and what is refused of them."""

from typing import Any

import pytest

from sae_repro.errors import StudyError
from sae_repro.params import Study, parse

from .test_check import STUDY

STREAM = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
MLP = [f"blocks.{layer}.hook_mlp_out" for layer in range(3)]
TOPK: dict[str, Any] = {"expansion": 2, "activation": "topk", "k": 4}
CROSS: dict[str, Any] = {**TOPK, "hooks": STREAM[:2]}


def parsed(cell: dict[str, Any], **extract: Any) -> Study:
    """A study of three layers of 64 dimensions with this one cell."""
    hooks = {"hooks": ["blocks.*.hook_resid_post", *MLP], **extract}
    return parse({**STUDY, "extract": hooks, "cells": {"cell": cell}})


@pytest.mark.parametrize("layers", ["0-2", "0,1,2"])
def test_layers_in_both_hooks_make_a_transcoder_for_each(layers: str) -> None:
    """Each is the cell, key and all, that its two hooks make when they are spelled out."""
    study = parsed({**TOPK, "hook": f"blocks.{layers}.hook_resid_post",
                    "target_hook": f"blocks.{layers}.hook_mlp_out"})  # fmt: skip
    assert list(study.cells) == [f"cell-layer{layer}" for layer in range(3)]
    for cell, hook, target in zip(study.cells.values(), STREAM, MLP, strict=True):
        spelled = parsed({**TOPK, "hook": hook, "target_hook": target}).cells["cell"]
        assert cell.identity() == spelled.identity()
        assert (cell.hook, cell.target_hook) == (hook, target)


def test_other_layers_are_paired_in_the_order_of_their_names() -> None:
    cells = parsed({**TOPK, "hook": "blocks.0-1.hook_resid_post",
                    "target_hook": "blocks.1-2.hook_mlp_out"}).cells  # fmt: skip
    assert [(name, cell.target_hook) for name, cell in cells.items()] == [
        ("cell-layer0", MLP[1]), ("cell-layer1", MLP[2])
    ]  # fmt: skip


def test_layers_of_one_hook_share_one_target() -> None:
    cells = parsed({**TOPK, "hook": "blocks.0-1.hook_resid_post", "target_hook": MLP[2]}).cells
    assert [cell.target_hook for cell in cells.values()] == [MLP[2]] * 2


def test_a_crosscoder_of_layers_is_that_of_their_hooks() -> None:
    """D is the sum over hooks, of any widths, in the order in which they are named."""
    neurons = "blocks.2.mlp.hook_post"
    short, spelled = (
        parsed({**TOPK, "hooks": hooks}, hooks=[*STREAM, neurons])
        for hooks in (["blocks.0-1.hook_resid_post", neurons], [*STREAM[:2], neurons])
    )
    assert list(short.cells) == ["cell"]
    assert short.cells["cell"].identity() == spelled.cells["cell"].identity()
    assert short.cells["cell"].hooks == (*STREAM[:2], neurons)
    assert short.d_in_of(short.cells["cell"]) == 64 + 64 + 4 * 64


def test_the_order_of_hooks_is_part_of_a_crosscoders_key() -> None:
    """It decides initial weights, and so bits."""
    ways = (STREAM[:2], STREAM[1::-1])
    first, second = (parsed({**TOPK, "hooks": hooks}).cells["cell"] for hooks in ways)
    assert first.identity() != second.identity()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a target of more layers": (
        {**TOPK, "hook": "blocks.0-1.hook_resid_post", "target_hook": "blocks.0-2.hook_mlp_out"},
        "cells.cell.target_hook = blocks.0-2.hook_mlp_out: 3 layers, and hook = "
        "blocks.0-1.hook_resid_post has 2",
    ),
    "layers in the target alone": (
        {**TOPK, "hook": STREAM[0], "target_hook": "blocks.0-2.hook_mlp_out"},
        "cells.cell.target_hook = blocks.0-2.hook_mlp_out: several layers, and hook has one",
    ),
    "layers that are not said": (
        {**TOPK, "hooks": ["blocks.*.hook_resid_post", MLP[0]]},
        "cells.cell.hooks = blocks.*.hook_resid_post: a cell says which layers",
    ),
    "a target that reads itself": (
        {**TOPK, "hook": "blocks.0-1.hook_resid_post",
         "target_hook": "blocks.0-1.hook_resid_post"},
        "cells.cell-layer0: target_hook blocks.0.hook_resid_post is hook itself",
    ),
    "hook beside hooks": (
        {**CROSS, "hook": STREAM[2]}, "cells.cell: hook and hooks exclude one another"),
    "target_hook beside hooks": (
        {**CROSS, "target_hook": MLP[0]}, "hooks makes a crosscoder, which predicts the hooks"),
    "one hook": ({**TOPK, "hooks": STREAM[:1]}, "cells.cell.hooks"),
    "a hook twice": ({**TOPK, "hooks": [STREAM[0]] * 2}, "cells.cell: hooks names one hook twice"),
    "a hook twice by its layers": (
        {**TOPK, "hooks": ["blocks.0-1.hook_resid_post", STREAM[1]]}, "hooks names one hook twice"),
    "a hook that is not extracted": (
        {**TOPK, "hooks": [STREAM[0], "blocks.0.hook_resid_mid"]},
        "cells.cell.hooks = blocks.0.hook_resid_mid: not extracted; extract.hooks has "
        "blocks.*.hook_resid_post"),
    "a misspelt hook": (
        {**TOPK, "hooks": [STREAM[0], "blocks.1.hook_resid_poost"]},
        "cells.cell.hooks = blocks.1.hook_resid_poost: not extracted; extract.hooks has "
        "blocks.*.hook_resid_post, blocks.0.hook_mlp_out, blocks.1.hook_mlp_out, "
        "blocks.2.hook_mlp_out; extract.untrained_hooks (for untrained/<hook>) has "
        "blocks.0.hook_resid_post; extract.embeddings_hooks (for embeddings/<hook>) has none; did "
        "you mean blocks.1.hook_resid_post"),
    "a misspelt hook of random weights": (
        {**TOPK, "hooks": [f"untrained/{STREAM[0]}s", f"untrained/{STREAM[0]}"]},
        "did you mean untrained/blocks.0.hook_resid_post"),
    "a misspelt target": (
        {**TOPK, "hook": STREAM[0], "target_hook": "blocks.1.hook_mlpout"},
        "did you mean blocks.1.hook_mlp_out"),
    "a misspelt block": (
        {**TOPK, "hook": "block.1.hook_mlp_out"}, "did you mean blocks.1.hook_mlp_out"),
    "several models": (
        {**TOPK, "hooks": [STREAM[0], f"untrained/{STREAM[0]}"]},
        "of several models, and a run holds one at a time"),
    "published resampling": (
        {"expansion": 2, "penalty": "l1", "lambda": 0.01, "revival": "resample_published",
         "resample_every": 10, "hooks": STREAM[:2]},
        "revival resample_published: published code that is repeated here reads one hook"),
    "more latents per token than there are": (
        {**CROSS, "k": 257}, "cells.cell.k = 257: allowed are 1 … 256 (K = 2 × 128)"),
    "skip": ({**CROSS, "skip": True}, "skip adds x·W_skip to the prediction of another hook"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_together_is_refused_in_a_line(name: str) -> None:
    cell, line = REFUSED[name]
    with pytest.raises(StudyError) as refused:
        parsed(cell, untrained_hooks=[STREAM[0]])
    assert line in str(refused.value)


@pytest.mark.parametrize("key", ["hook", "target_hook", "hooks"])
def test_a_hook_of_models_that_is_not_extracted_is_no_other_hook_misspelt(key: str) -> None:
    for hook in ("blocks.0.hook_resid_mid", "blocks.2.attn.hook_z.1"):
        with pytest.raises(StudyError, match="not extracted") as refused:
            parsed({**TOPK, key: [STREAM[0], hook] if key == "hooks" else hook})
        assert "did you mean" not in str(refused.value)


def test_hooks_that_the_model_lacks_are_refused_with_the_nearest_it_has() -> None:
    with pytest.raises(
        StudyError, match=r"hook_resid_poost.*did you mean blocks\.0\.hook_resid_post"
    ):
        parsed({**TOPK, "hooks": [STREAM[1], "blocks.0.hook_resid_poost"]},
               hooks=[*STREAM, "blocks.0.hook_resid_poost"])  # fmt: skip
