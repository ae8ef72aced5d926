"""The trials: every recipe on the toy tree, the most instructive ones on the other worlds."""

import math
from pathlib import Path
from typing import Any

from sae_repro.control.planned import Trial
from sae_repro.control.spec_recipes import spec_trials
from sae_repro.errors import StudyError
from sae_repro.params import Cell, Control
from sae_repro.params.worlds import World

BATCH = 200
ORACLE_BATCH = 256
TREE_WIDTH, SECOND_TREE_D = 20, 30
ORACLE_D, ORACLE_WIDTHS = 64, (128, 512)
ORACLE_ROWS = 102_400  # at most; more steps pass over them again
SPARSE_D, SPARSE_WIDTH = 32, 64
TWO_ATOMS_STEPS = 800

# k: as many atoms as are on in a row that has any, on average: 1.9 on the tree, 1.2 of two atoms,
# 2.0 on the oracle, 2.3 where half are dead
TREE_K, TWO_ATOMS_K, ORACLE_K, SPARSE_K = 2, 1, 2, 2

L1 = {"penalty": "l1", "lambda": 0.1}
MATRYOSHKA = {"prefixes": "random", "n_prefixes": 10}

TREE: dict[str, dict[str, Any]] = {
    "vanilla": L1,
    "topk": {"activation": "topk", "k": TREE_K},
    "batchtopk": {"activation": "batchtopk", "k": TREE_K},
    "jumprelu": {"activation": "jumprelu", "penalty": "l0", "lambda": 0.2,
                 "jumprelu_bandwidth": 0.1},
    "gated": {"activation": "gated", "penalty": "l1", "lambda": 0.4},
    "matryoshka-random": {**L1, **MATRYOSHKA},
    "matryoshka-fixed": {**L1, "prefixes": "fixed"},
    "matryoshka-batchtopk": {"activation": "batchtopk", "k": TREE_K, **MATRYOSHKA},
    "matryoshka-jumprelu": {"activation": "jumprelu", "penalty": "l0", "lambda": 0.1,
                            "jumprelu_bandwidth": 0.1, **MATRYOSHKA},
    "matryoshka-gated": {"activation": "gated", "penalty": "l1", "lambda": 0.2, **MATRYOSHKA},
}  # fmt: skip
ON_BOTH_TREES = ("vanilla", "matryoshka-random")

TWO_ATOMS: dict[str, dict[str, Any]] = {
    "vanilla": L1,
    "batchtopk": {"activation": "batchtopk", "k": TWO_ATOMS_K},
    "jumprelu": {"activation": "jumprelu", "penalty": "l0", "lambda": 0.02,
                 "jumprelu_bandwidth": 0.1},
    "gated": {"activation": "gated", "penalty": "l1", "lambda": 0.1},
    "matryoshka-random": {**L1, "prefixes": "random", "n_prefixes": 2},
}  # fmt: skip

ORACLE_L1 = {"penalty": "l1", "lambda": 0.6}  # L0 then is about ORACLE_K
ORACLE: dict[str, dict[str, Any]] = {
    "vanilla": ORACLE_L1,
    "topk": {"activation": "topk", "k": ORACLE_K},
    "batchtopk": {"activation": "batchtopk", "k": ORACLE_K},
    "matryoshka-random": {**ORACLE_L1, **MATRYOSHKA},
    "matryoshka-batchtopk": {"activation": "batchtopk", "k": ORACLE_K, **MATRYOSHKA},
}

RESAMPLE = {"revival": "resample", "resample_every": 250, "resample_until": 0.5}
REVIVAL: dict[str, dict[str, Any]] = {
    "vanilla": L1,
    "vanilla + resample": {**L1, **RESAMPLE},
    "topk": {"activation": "topk", "k": SPARSE_K},
    "topk + resample": {"activation": "topk", "k": SPARSE_K, **RESAMPLE},
    "topk + auxk": {"activation": "topk", "k": SPARSE_K, "revival": "auxk", "dead_tokens": 10_000},
}  # fmt: skip


def trials(settings: Control, folder: Path = Path()) -> list[Trial]:
    """All trials that the settings ask for, in the order of the tables.

    `folder` holds params.yaml. StudyError for a spec file that is not as it was pinned, or is none.
    """
    by_world: list[list[Trial]] = []
    for world in settings.worlds:
        if isinstance(world, str):
            by_world.append(
                [t for seed in range(settings.seeds) for t in _TRIALS[world](settings, seed)]
            )
        else:
            by_world.append(spec_trials(world, settings.seeds, folder))
    planned = [trial for of_world in by_world for trial in of_world]
    _check_names(planned)
    return planned


def _check_names(planned: list[Trial]) -> None:
    specs: dict[str, World | None] = {}
    for trial in planned:
        if specs.setdefault(trial.name, trial.spec) is not trial.spec:
            raise StudyError(
                f"control.worlds: two worlds are called {trial.name}; rename a spec file"
            )


def _tree(settings: Control, seed: int) -> list[Trial]:
    return [
        _on_tree(d, name, settings.tree_steps, seed)
        for d, names in ((TREE_WIDTH, tuple(TREE)), (SECOND_TREE_D, ON_BOTH_TREES))
        for name in names
    ]


def _on_tree(d_in: int, name: str, steps: int, seed: int) -> Trial:
    # λ moves gated's gates slowly: at half this step and λ its loss still fell after 1,400
    lr = 4e-2 if name == "gated" else 1e-2 if name in ON_BOTH_TREES else 2e-2
    return Trial("tree", f"tree d={d_in}", name, seed, d_in, BATCH, steps, steps * BATCH,
                 _cell(d_in, TREE_WIDTH, lr=lr, **TREE[name]))  # fmt: skip


def _two_atoms(settings: Control, seed: int) -> list[Trial]:
    return [
        Trial("two_atoms", "two atoms", name, seed, 2, 100, TWO_ATOMS_STEPS, 500,
              _cell(2, 3, lr=1e-2, b_dec_init="zero", **choices))
        for name, choices in TWO_ATOMS.items()
    ]  # fmt: skip


def _oracle(settings: Control, seed: int) -> list[Trial]:
    epochs = math.ceil(settings.oracle_steps * ORACLE_BATCH / ORACLE_ROWS)
    per_epoch = math.ceil(settings.oracle_steps / epochs)
    return [
        Trial("oracle", f"oracle K={k}", name, seed, ORACLE_D, ORACLE_BATCH, epochs * per_epoch,
              per_epoch * ORACLE_BATCH, _cell(ORACLE_D, k, lr=1e-2, **choices))
        for k in ORACLE_WIDTHS
        for name, choices in ORACLE.items()
    ]  # fmt: skip


def _revival(settings: Control, seed: int) -> list[Trial]:
    return [
        Trial("sparse", "half dead", name, seed, SPARSE_D, BATCH, settings.revival_steps,
              settings.revival_steps * BATCH,
              _cell(SPARSE_D, SPARSE_WIDTH, lr=1e-2, **choices),
              half_dead=True)
        for name, choices in REVIVAL.items()
    ]  # fmt: skip


_TRIALS = {"tree": _tree, "two_atoms": _two_atoms, "oracle": _oracle, "revival": _revival}


def _cell(d_in: int, width: int, **choices: Any) -> Cell:
    # a little more than K / D, so that rounding down can't lose a latent
    return Cell(
        expansion=(width + 0.01) / d_in,
        reconstruction="sum",
        normalisation="none",  # atoms have norm one, and λ is chosen for them as they are
        grad_clip=1.0,  # with which these learning rates were chosen
        **choices,
    )
