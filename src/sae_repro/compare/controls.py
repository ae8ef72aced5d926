"""Tables and figures of the controls: autoencoders where the true atoms are known."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.control_stability import stability_section
from sae_repro.compare.drawing import drawn
from sae_repro.compare.tables import number, with_interval, write_table
from sae_repro.files import read_json, write_text
from sae_repro.metrics import CONTROLS, mean_over_seeds
from sae_repro.metrics.labels import KEY, heading
from sae_repro.numerics.intervals import differ

HEAT = ("vanilla", "matryoshka-random")


def read_trials(folder: Path) -> pd.DataFrame:
    """trials.csv of the stage `control`; empty where it tried nothing."""
    return _read(folder / "trials.csv")


def _read(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text)) if text.strip() else pd.DataFrame()


def over_seeds(trials: pd.DataFrame) -> pd.DataFrame:
    """A row per world and recipe: seeds, failures, each metric's mean and 95 % interval."""
    rows = []
    for (world, recipe), group in trials.groupby(["world", "recipe"], sort=False):
        ok = group[group["status"] == "ok"]
        row: dict[str, Any] = {
            "world": world,
            "recipe": recipe,
            "seeds": len(group),
            "failed": len(group) - len(ok),
            "target_l0": group["target_l0"].iloc[0],
        }
        for metric in CONTROLS:
            name = metric.name
            values = ok[name].dropna().to_numpy(float) if name in ok else np.empty(0)
            mean, low, high = mean_over_seeds(metric, values.tolist())
            row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def findings(trials: pd.DataFrame, table: pd.DataFrame) -> Iterator[str]:
    """Sentences: each expectation of the controls, and whether it was observed in every seed."""
    expected = (
        ("tree", "vanilla", "hole_rate", "≥", 0.9, "leaves a hole in every parent"),
        ("tree", "matryoshka-random", "hole_rate", "≤", 0.1, "leaves no hole"),
        ("two atoms", "vanilla", "matched_cosine", "≥", 0.99, "finds both atoms"),
        ("half dead", "vanilla", "revived_fraction", "≤", 0.0, "stays half dead"),
        ("half dead", "topk", "revived_fraction", "≤", 0.0, "stays half dead"),
        ("half dead", "vanilla + resample", "revived_fraction", "≥", 0.9, "lives again"),
        ("half dead", "topk + resample", "revived_fraction", "≥", 0.9, "lives again"),
        ("half dead", "topk + auxk", "revived_fraction", "≥", 0.9, "lives again"),
    )
    for world, recipe, metric, sign, bound, expectation in expected:
        runs = trials[trials["world"].str.startswith(world) & (trials["recipe"] == recipe)]
        for name, group in runs.groupby("world", sort=False):
            # a trial that failed shows nothing
            values = group.reindex(columns=[metric])[metric].to_numpy(float)
            holds = (values >= bound) if sign == "≥" else (values <= bound)
            listing = ", ".join(number(float(v)) for v in values)
            verdict = "observed" if holds.all() else "not observed"
            yield (
                f"{name}, {recipe} {expectation}: **{verdict}** ({metric} {sign} {bound:g} in "
                f"{int(holds.sum())} of {len(holds)} seeds: {listing})."
            )
    yield from _parents(table)
    if "settled" in trials:
        measured = trials["settled"].dropna().astype(bool)
        yield (
            f"Loss settled in {int(measured.sum())} of {len(measured)} trials: before the learning "
            "rate decays, a tenth of the steps changes it by less than 1 %, as far as its noise "
            "lets one see."
        )


def _parents(table: pd.DataFrame) -> Iterator[str]:
    for world in table["world"].unique():
        pair = table[(table["world"] == world) & table["recipe"].isin(HEAT)]
        if not str(world).startswith("oracle") or len(pair) < 2:
            continue
        rows = pair.set_index("recipe").to_dict("index")
        a, b = (rows[recipe] for recipe in HEAT)
        recalls = [
            f"{recipe} {number(row['parent_recall'])} [{number(row['parent_recall_low'])}, "
            f"{number(row['parent_recall_high'])}]"
            for recipe, row in zip(HEAT, (a, b), strict=True)
        ]
        intervals = [(row["parent_recall_low"], row["parent_recall_high"]) for row in (a, b)]
        verdict = "different" if differ(*intervals) else "not distinguishable"
        yield f"{world}: recall of the parents, {'; '.join(recalls)}: {verdict}."


def write_control(folder: Path, artifacts: Path) -> None:
    """control.csv and .md: means over seeds with intervals, and what was expected of them.

    control_trials.csv has each seed, control_atoms.csv the means over seeds for each atom,
    control_stability.csv what stability over seeds says of recovery.
    """
    trials = read_trials(artifacts / "control")
    if not len(trials):
        return
    table = over_seeds(trials)
    text = trials.to_csv(index=False, lineterminator="\n")
    write_text(folder / "control_trials.csv", text)
    printed = pd.DataFrame(
        {
            "world": table["world"],
            "recipe": table["recipe"],
            "seeds": [f"{s}" + (f" ({f} failed)" if f else "")
                      for s, f in zip(table["seeds"], table["failed"], strict=True)],
            "target L0": [number(v) for v in table["target_l0"]],
            **{heading(m.name, CONTROLS): [_cell(row, m.name) for row in table.to_dict("records")]
               for m in CONTROLS if "control.md" in m.shown},
        }
    )  # fmt: skip
    lines = "\n".join(f"- {sentence}" for sentence in findings(trials, table))
    caption = (
        "# Controls: activations whose atoms are known\n\nMean over seeds [95 % interval: "
        "Student's t, of fractions on their angles so that it stays in [0, 1]]; each seed draws a "
        "world, data and weights of its own (the oracle's atoms are those of the study). "
        f"{KEY}. METRICS.md defines each metric.\n\n{lines}"
    )
    write_table(folder, "control", table, caption, printed, latex=True)
    stable = _read(artifacts / "control" / "stability.csv")
    if len(stable):
        path = folder / "control.md"
        text = path.read_text(encoding="utf-8") + "\n" + stability_section(folder, stable)
        write_text(path, text)
    atoms = _read(artifacts / "control" / "atoms.csv")
    if not len(atoms):
        return
    by_atom = atoms.groupby(["world", "recipe", "atom"], sort=False)
    mean = by_atom[["cosine", "precision", "recall", "f1", "hole_rate"]].mean().reset_index()
    text = mean.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_text(folder / "control_atoms.csv", text)


def _cell(row: dict[Any, Any], metric: str) -> str:
    mean, low, high = (row[f"{metric}{end}"] for end in ("", "_low", "_high"))
    return with_interval(mean, (low, high))


def heat_maps(folder: Path, artifacts: Path) -> None:
    """True against learnt activations on the toy tree, and learnt against true atoms."""
    heat = read_json(artifacts / "control" / "heat.json")
    for world, recipes in heat.items():
        names = [recipe for recipe in HEAT if recipe in recipes]
        if not names:
            continue
        with drawn(folder, f"control_{world.replace(' ', '_').replace('=', '')}", 9.6,
                   2.9 * len(names) + 0.6) as figure:  # fmt: skip
            axes = figure.subplots(len(names), 3, squeeze=False)
            for row, recipe in zip(axes, names, strict=True):
                matrices = {key: np.array(value) for key, value in recipes[recipe].items()}
                for ax, key, title, xlabel, ylabel in (
                    (row[0], "true", "true activations", "atom", "held-out row"),
                    (row[1], "learnt", f"{recipe}: matched latents", "latent of atom", ""),
                    (row[2], "cosines", "decoder rows", "latent of atom", "true atom"),
                ):
                    signed = key == "cosines"
                    image = ax.imshow(
                        matrices[key], aspect="auto", interpolation="nearest",
                        cmap="RdBu_r" if signed else "magma",
                        vmin=-1 if signed else 0, vmax=1 if signed else 1.5,
                    )  # fmt: skip
                    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
                    ax.grid(False)
                    figure.colorbar(image, ax=ax, fraction=0.05)
            figure.suptitle(f"Control, {world}, one seed: 3 × (parent, 3 children), 8 leaves",
                            fontsize=10)  # fmt: skip
