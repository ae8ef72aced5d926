"""Stage `control`: the same autoencoders on activations whose atoms are known.

artifacts/control/ holds trials.csv (a row per world, recipe and seed), atoms.csv (a row per atom
of each), stability.csv (a row per recipe of the tree and the oracle: does stability over seeds
predict recovery?), and heat.json (one tree per recipe: true and learnt activations, and cosines).
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_repro.contents import check, sealed_folder
from sae_repro.control.job import StabilityJob, jobs
from sae_repro.control.planned import Trial
from sae_repro.control.recipes import trials
from sae_repro.files import read_json, write_json, write_text
from sae_repro.params import Control
from sae_repro.params.architecture import architecture_of
from sae_repro.sidebyside import side_by_side
from sae_repro.stage import STATE, StageContext

STABILITY = ("tree", "oracle")
"""Worlds of many atoms, of which an SAE finds some."""


def run(context: StageContext) -> None:
    """Train and measure all trials side by side."""
    import pandas as pd

    settings = context.section(Control, "control")
    corpus = context.artifacts("corpus")
    if corpus.is_dir():  # no other world than the oracle's asks for one
        check(corpus)
    planned = trials(settings)  # errors of spec files come before any training
    if not (corpus / "concepts.json").is_file():
        planned = [trial for trial in planned if trial.world != "oracle"]
    rows: list[dict[str, Any]] = []
    atoms: list[dict[str, Any]] = []
    heat: dict[str, Any] = {}
    STATE.mkdir(exist_ok=True)
    # in the study's folder: what jobs write elsewhere does not come back from another machine
    with tempfile.TemporaryDirectory(dir=STATE) as name:
        folder = STATE / Path(name).name
        if planned:
            pieces = [
                (job, job.steps) for job in jobs(planned, context.value("seed"), corpus, folder)
            ]
            side_by_side(pieces, what="control", unit="step", kept=False)
        for i, trial in enumerate(planned):
            outcome = read_json(folder / f"{i}.json")
            labels = {"world": trial.name, "recipe": trial.recipe, "seed": trial.seed}
            rows.append(
                {
                    **labels,
                    "status": outcome["status"],
                    "target_l0": trial.cell.l0_target,
                    **_of_spec(trial),
                    **outcome.get("summary", {}),
                    "reason": outcome.get("reason"),
                }
            )
            atoms += [{**labels, **atom} for atom in outcome.get("atoms", [])]
            if "heat" in outcome:
                heat.setdefault(trial.name, {})[trial.recipe] = outcome["heat"]
        stable = _stability(planned, folder)
    with sealed_folder(context.artifacts("control")) as out:
        for file, table in (("trials", rows), ("atoms", atoms), ("stability", stable)):
            text = pd.DataFrame(table).to_csv(index=False, lineterminator="\n")
            write_text(out / f"{file}.csv", text)
        write_json(out / "heat.json", heat)


def _of_spec(trial: Trial) -> dict[str, Any]:
    """Columns of trials on worlds of spec files."""
    if trial.spec is None:
        return {}
    return {
        "method": trial.method,
        "architecture": architecture_of(trial.cell),
        "width": trial.cell.width(trial.d_in),
        "l0_multiple": trial.l0_multiple,
    }


def _stability(planned: Sequence[Trial], folder: Path) -> list[dict[str, Any]]:
    """Rows of stability.csv: of the recipes whose SAEs of several seeds trained to their ends."""
    saved: dict[str, dict[str, list[Path]]] = {}
    for i, trial in enumerate(planned):
        path = folder / f"{i}.npz"
        if trial.world in STABILITY and path.is_file():
            saved.setdefault(trial.name, {}).setdefault(trial.recipe, []).append(path)
    compared = [
        StabilityJob(world, several, folder / f"stability-{number}.json")
        for number, (world, recipes) in enumerate(saved.items())
        if (several := {name: paths for name, paths in recipes.items() if len(paths) > 1})
    ]
    if compared:  # by the workers, which have loaded torch for their trials
        side_by_side([(job, 1) for job in compared], what="stability", unit="world", kept=False)
    return [
        {"world": job.world, "recipe": recipe, **row}
        for job in compared
        for recipe, row in read_json(job.out).items()
    ]
