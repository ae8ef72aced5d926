"""Do the seeds of a cell find the same latents, and are those that they share the better ones?"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import ABSENT, number, unit_of, with_interval, write_table
from sae_repro.metrics.labels import KEY, heading
from sae_repro.numerics.intervals import Z_95
from sae_repro.remarks import missed_on

SHOWN = ("pw_mcc", "shared_fraction", "activation_mcc")
QUALITIES = {"M": "M", "phi": "best φ"}
"""Of a latent, from monosemantic.parquet; and what tables call it."""
LEAST_LATENTS = 10
"""Below this a rank correlation says nothing."""
FIELLER = 1.03
"""√1.06: of Spearman's coefficient after Fisher's transformation, times 1/√(n − 3)."""


def consistent(results: Sequence[Result]) -> list[Result]:
    """The cells whose seeds were compared, by hook, target L0, width, most consistent first."""
    compared = [r for r in results if r.ok and r.metrics.get("pw_mcc") is not None]
    return sorted(
        compared,
        key=lambda r: (
            r.hook, r.cell.l0_target or math.inf, r.measured["d_sae"], -(r.metrics["pw_mcc"] or 0),
        ),
    )  # fmt: skip


def write_consistency(folder: Path, results: Sequence[Result]) -> None:
    """consistency.csv and consistency.md; nothing where no cell has several seeds."""
    cells = consistent(results)
    if not cells:
        return
    rows = [_row(r) for r in cells]
    printed = pd.DataFrame([_printed(r, row) for r, row in zip(cells, rows, strict=True)])
    tokens, unit = cells[0].measured["counts"]["consistency_tokens"], unit_of(cells[0])
    caption = (
        "# Consistency over seeds\n\nHow much of a dictionary another seed finds again, over all "
        f"pairs of a cell's seeds; activations on {tokens:,} held-out {unit}. Nulls: of PW-MCC as "
        "many random directions, which rises with K; of activation MCC the same latents on other "
        f"documents' {unit}. The shared fraction of random directions is 0 where it has no column. "
        "Brackets: 95 % interval, jackknife over seeds (of three or more; two seeds have one pair "
        "and no interval). Compare architectures at one target L0 and one K. A cell that missed "
        f"its target is marked *. {KEY}.\n\nAn untrained SAE has an activation MCC far above its "
        "null: latents that point alike fire alike. Read it beside the untrained cell.\n\nThe "
        "last columns: does a latent that other seeds find again mean more? Spearman's rank "
        "correlation of its stability (mean |cosine| with its partners) with its M and with its "
        "best φ over concepts, mean over seeds; the interval (Fieller's) counts the latents of one "
        "seed only, as those of the others are partly the same. *Given density*: the partial rank "
        "correlation at equal firing density, since latents that fire often are found again more "
        "easily and have a larger φ."
    )
    write_table(folder, "consistency", pd.DataFrame(rows), caption, printed)


def _row(r: Result) -> dict[str, object]:
    counts = r.measured["counts"]
    pairs = counts["consistency_pairs"]
    row: dict[str, object] = {
        "cell": r.name,
        "architecture": r.architecture,
        "hook": r.hook,
        "K": r.measured["d_sae"],
        "target_l0": r.cell.l0_target,
        "missed": "yes" if missed_on(r.cell, r.measured) else "no",
        "l0": r.metrics["l0"],
        "seeds": counts["consistency_seeds"],
        "pairs": pairs,
        # each pair counts the latents of two SAEs
        "latents_alive": counts["consistency_latents"] / (2 * pairs),
    }
    for metric in (*SHOWN, "pw_mcc_all"):
        row[metric] = r.metrics.get(metric)
        row[f"{metric}_low"], row[f"{metric}_high"] = r.interval(metric) or (None, None)
        null = f"{metric}_null"
        if null in r.metrics:
            row[null] = r.metrics[null]
    for quality in QUALITIES:
        row |= _predicts(r, quality)
    return row


def _predicts(r: Result, quality: str) -> dict[str, float | None]:
    """The rank correlation of stability with `quality`, its interval, and that given density."""
    name = f"stability_{quality}"
    plain, partial, counts = [], [], []
    for sae in r.saes:
        path = sae.evaluated / "monosemantic.parquet"
        if not path.is_file() or "stability" not in sae.latents:
            continue
        frame = sae.latents[["stability", "density"]].join(pd.read_parquet(path)[[quality]])
        frame = frame.dropna()
        if len(frame) < LEAST_LATENTS:
            continue
        ranks = frame.rank().corr()
        with_quality, s_density, q_density = (
            float(ranks.loc[a, b])  # type: ignore[arg-type]
            for a, b in (("stability", quality), ("stability", "density"), (quality, "density"))
        )
        rest = (1 - s_density**2) * (1 - q_density**2)
        plain.append(with_quality)
        partial.append(
            (with_quality - s_density * q_density) / math.sqrt(rest) if rest > 0 else 0.0
        )
        counts.append(len(frame))
    if not plain or np.isnan(plain).any():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_given_density"))
    mean, n = float(np.mean(plain)), float(np.mean(counts))
    low, high = _fieller(mean, n)
    return {
        name: mean,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_given_density": float(np.mean(partial)),
        f"{name}_latents": n,
    }


def _fieller(rho: float, n: float) -> tuple[float, float]:
    """The 95 % interval of Spearman's coefficient of `n` pairs (Fieller, Hartley, Pearson 1957)."""
    bounded = min(max(rho, -1 + 1e-12), 1 - 1e-12)
    half = Z_95 * FIELLER / math.sqrt(n - 3)
    return math.tanh(math.atanh(bounded) - half), math.tanh(math.atanh(bounded) + half)


def _printed(r: Result, row: dict[str, object]) -> dict[str, str]:
    target = r.cell.l0_target
    missed = " *" if row["missed"] == "yes" else ""
    shown = {
        "cell": r.name,
        "K": str(row["K"]),
        "target L0": (ABSENT if target is None else f"{target:g}") + missed,
        "L0": number(r.metrics["l0"]),
        "seeds, pairs": f"{row['seeds']}, {row['pairs']}",
        "alive": number(row["latents_alive"]),
    }
    for metric in SHOWN:
        shown[heading(metric)] = with_interval(r.metrics.get(metric), r.interval(metric))
        null = r.metrics.get(f"{metric}_null")
        if metric != "shared_fraction" or null:
            shown[f"{heading(metric)} null".replace(" ↑", "")] = number(null)
    for quality, label in QUALITIES.items():
        name = f"stability_{quality}"
        bounds = row[f"{name}_low"], row[f"{name}_high"]
        value = row[name]
        shown[f"ρ stability, {label}"] = (
            ABSENT if value is None else with_interval(value, bounds)  # type: ignore[arg-type]
        )
        shown[f"given density, {label}"] = number(row[f"{name}_given_density"])
    return shown
