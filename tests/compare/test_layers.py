"""Cells by layer: what is one line, and what is none."""

from dataclasses import replace

from sae_repro.compare.collect import Result
from sae_repro.compare.layers import by_layer

from .results import TOPK, result

OUT = "blocks.{}.hook_mlp_out"


def _at(hook: str, **choices: object) -> Result:
    made = result(hook, {**TOPK, **choices}, {"fvu": (0.1, 0.1, 0.1)}, spread=None)
    return replace(made, measured={**made.measured, "hook": hook})


def test_cells_of_three_layers_are_a_line_and_of_two_none() -> None:
    three = [_at(OUT.format(n)) for n in (2, 0, 1)]
    two = [_at(f"blocks.{n}.hook_resid_post") for n in (0, 1)]
    [(key, line)] = by_layer([*three, *two, _at("ln_final.hook_out")]).items()
    assert key[0] == "hook_mlp_out"
    assert [layer for layer, _ in line] == [0, 1, 2]


def test_a_transcoder_between_two_hooks_is_in_no_line() -> None:
    cells = [
        _at(f"blocks.{n}.hook_resid_mid", target_hook=OUT.format(n), dead_tokens=100)
        for n in range(3)
    ]
    assert by_layer(cells) == {}
