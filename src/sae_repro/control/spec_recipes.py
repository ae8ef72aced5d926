"""The trials on a world of a spec file: every recipe at every width and L0 that it asks for."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

from sae_repro.control.planned import Trial
from sae_repro.control.spec_files import read_world
from sae_repro.control.spec_world import true_l0
from sae_repro.params import Cell
from sae_repro.params.control import WorldFile
from sae_repro.params.worlds import World
from sae_repro.pins import PinnedFile

REVIVED = {"revival": "auxk", "dead_tokens": 20_000}
L1 = {"penalty": "l1"}
JUMPRELU = {"activation": "jumprelu", "penalty": "l0_quadratic", "jumprelu_bandwidth": 0.02}
MATRYOSHKA = {"prefixes": "random", "n_prefixes": 10}

RECIPES: dict[str, dict[str, Any]] = {
    "vanilla": L1,
    "topk": {"activation": "topk", **REVIVED},
    "batchtopk": {"activation": "batchtopk", **REVIVED},
    "jumprelu": JUMPRELU,
    "gated": {"activation": "gated", "penalty": "l1"},
    "matryoshka-random": {**L1, **MATRYOSHKA},
    "matryoshka-fixed": {**L1, "prefixes": "fixed"},
    "matryoshka-batchtopk": {"activation": "batchtopk", **REVIVED, **MATRYOSHKA},
    "matryoshka-jumprelu": {**JUMPRELU, **MATRYOSHKA},
    "matryoshka-gated": {"activation": "gated", "penalty": "l1", **MATRYOSHKA},
    "frozen-decoder": {"activation": "topk", "frozen": "decoder"},
    "frozen-soft-decoder": {"activation": "topk", "frozen": "soft_decoder"},
    "frozen-encoder": {"activation": "topk", "frozen": "encoder"},
}
"""All at the L0 that is asked for: by k, or by a λ that is steered to it."""


def pinned_world(file: WorldFile, folder: Path) -> PinnedFile:
    """A world's spec file; `folder` holds params.yaml."""
    return PinnedFile("control.worlds.path", file.path, folder / file.path, file.sha256)


def spec_trials(file: WorldFile, seeds: int, folder: Path) -> list[Trial]:
    """The trials on the world of a spec file; StudyError where it is not as it was pinned."""
    pinned = pinned_world(file, folder)
    pinned.check()
    world = read_world(pinned.path)
    l0, saes = true_l0(world), world.saes
    widths = saes.widths or (world.atoms,)
    return [
        _trial(world, PurePosixPath(file.path).stem, recipe, width, multiple, l0, seed)
        for seed in range(seeds)
        for recipe in saes.recipes
        for width in widths
        for multiple in saes.l0
    ]


def _trial(
    world: World, name: str, recipe: str, width: int, multiple: float, l0: float, seed: int
) -> Trial:
    saes = world.saes
    label = recipe
    if len(saes.widths or ()) > 1:
        label += f" K={width}"
    if len(saes.l0) > 1:
        label += f" L0×{multiple:g}"
    k = min(max(1, round(multiple * l0)), width)
    return Trial(
        "spec", name, label, seed, world.d_in, saes.batch_size, saes.steps,
        saes.steps * saes.batch_size, _cell(world.d_in, width, k, RECIPES[recipe]),
        spec=world, method=recipe, l0_multiple=multiple,
    )  # fmt: skip


def _cell(d_in: int, width: int, k: int, choices: dict[str, Any]) -> Cell:
    if choices.get("activation") in ("topk", "batchtopk"):
        asked: dict[str, Any] = {"k": k}
    else:
        # where λ is steered from: the squared error, a mean over D, balances λz at z / D
        first = 1.0 if choices["penalty"] == "l0_quadratic" else 0.8 / math.sqrt(d_in * k)
        asked = {"target_l0": float(k), "lambda": first}
    # a little more than K / D, so that rounding down can't lose a latent
    return Cell(expansion=(width + 0.01) / d_in, **asked, **choices)
