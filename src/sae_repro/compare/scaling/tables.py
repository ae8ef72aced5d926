"""The tables scaling, scaling_budgets and scaling_cells, where a study has families of cells."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.scaling.isoflop import budgets, by_parabola, optimum
from sae_repro.compare.scaling.law import EXPONENTS, Floats
from sae_repro.compare.scaling.surfaces import FittedSurface, is_turned
from sae_repro.compare.tables import ABSENT, number, with_interval, write_table
from sae_repro.metrics.labels import label
from sae_repro.numerics.bootstrap import interval

FOUND = 0.95
"""Of the resamplings, that must have an exponent inside the search for it to be identified, and a
compute-optimal width for it to have an interval."""
LARGER = (10.0, 100.0)
"""Budgets beyond the largest training of a family, as multiples of it."""


def write_scaling(
    folder: Path,
    fitted: Sequence[FittedSurface],
    resamplings: int,
    seed: int,
    unit: str = "tokens",
) -> None:
    """The three tables; nothing where no law was fitted."""
    if not fitted:
        return
    law_rows = [_law_row(one) for one in fitted]
    caption = (
        "# Scaling laws\n\nL(K, T) = E + A/K^α + B/T^β of each family of cells, or L(K, L0) = E + "
        "A/K^α + B/L0^β, fitted by variable projection (`compare.scaling.law`); of metrics of "
        "which more is better, L is 1 − the metric. Brackets: 95 % intervals from "
        f"{resamplings:,} resamplings of seeds and documents (study seed {seed}), widened by the "
        "misfit where cells are farther from the law than their seeds explain. Held out: the "
        "largest cell, which the law was not fitted to, and its predicted loss on the same "
        f"documents. Not identified: an exponent at an end of the search ({EXPONENTS[0]:g} … "
        f"{EXPONENTS[1]:g}), or no fall at all, in more than {1 - FOUND:.0%} of the resamplings; "
        f"what then follows from the law is left out. T is {unit} seen; those beyond the extracted "
        "ones are repeated."
    )
    printed = pd.DataFrame(list(map(_printed_law, fitted, law_rows)))
    write_table(folder, "scaling", pd.DataFrame(law_rows), caption, printed)
    cells = pd.DataFrame([row for one in fitted for row in _cell_rows(one)])
    write_table(
        folder,
        "scaling_cells",
        cells,
        "# Scaling laws and their cells\n\nLoss, law and residual (loss − law, relative to the "
        "loss; absolute where a loss is 0) of every cell.",
        cells.map(number),
    )
    rows = [
        row
        for one in fitted
        if one.metric == "fvu" and one.surface.second == "T"
        for row in _budget_rows(one)
    ]
    if rows:
        caption = (
            "# Compute-optimal widths\n\nK* and T* with the lowest FVU at C operations of training "
            "(`params.operations`), by the law. Beside them K* by Approach 2, the vertex of the "
            "parabola through the cells' IsoFLOP curve, straight between cells; and its bias: what "
            "the same parabolas give on the law's own losses at these cells, over the law's K* "
            "there, 1 without bias (arXiv:2603.22339: α ≠ β and widths about another middle than "
            "K* move the vertex). A dash: no parabola with a minimum among the widths, or no law "
            "that is identified. Budgets beyond the cells': 10 and 100 times the largest training."
        )
        frame = pd.DataFrame(rows)
        write_table(folder, "scaling_budgets", frame, caption, _printed_budgets(frame))


def _bounds(draws: Floats) -> tuple[float, float]:
    found = interval(draws, least=FOUND)
    return (found[0], found[1]) if found else (np.nan, np.nan)


def not_identified(one: FittedSurface) -> dict[str, str]:
    """Exponents that the cells do not tell, and why: `alpha: "α: no fall with K"`."""
    law, draws = one.fit.law, one.fit.resampled
    reasons = {}
    for name, exponent, axis, inside, found, factor in (
        ("alpha", "α", "K", law.alpha_found, draws.alpha_found, law.a),
        ("beta", "β", one.surface.second, law.beta_found, draws.beta_found, law.b),
    ):
        if factor[0] == 0:
            reasons[name] = f"{exponent}: no fall with {axis}"
        elif not inside[0] or found.mean() < FOUND:
            reasons[name] = f"{exponent} not identified"
    return reasons


def _law_row(one: FittedSurface) -> dict[str, Any]:
    fit, table, unknown = one.fit, one.fit.table, not_identified(one)
    row: dict[str, Any] = {
        "family": one.surface.family,
        "at": one.surface.at or None,
        "law": f"L(K, {one.surface.second})",
        "metric": one.metric,
        "of": f"1 − {one.metric}" if is_turned(one.metric) else one.metric,
        "cells": len(table.names),
        "least_seeds": min(map(len, table.seeds)),
        "interval_over": "seeds and documents" if table.over_documents else "seeds",
    }
    for column, field in (
        ("E", "irreducible"), ("A", "a"), ("alpha", "alpha"), ("B", "b"), ("beta", "beta"),
    ):  # fmt: skip
        # an exponent may be known where the other one is not; the rest of the law is not
        known = field not in unknown if column in ("alpha", "beta") else not unknown
        low, high = _bounds(getattr(fit.resampled, field)) if known else (np.nan, np.nan)
        row |= {column: float(getattr(fit.law, field)[0]) if known else np.nan}
        row |= {f"{column}_low": low, f"{column}_high": high}
    row |= {
        "not_identified": "; ".join(unknown.values()) or None,
        "misfit": fit.misfit,
        "residual_rms": float(np.sqrt(np.square(fit.residuals).mean())),
        "not_converged": int((~fit.resampled.converged).sum() + (~fit.law.converged).sum()),
    }
    return row | _prediction(one, known=not unknown)


def _prediction(one: FittedSurface, *, known: bool) -> dict[str, Any]:
    """The held-out cell: predicted by a law that is `known`, without a look at it, and as it is."""
    i, table = one.held_out, one.table
    nothing = dict.fromkeys(
        ("held_out", "predicted", "predicted_low", "predicted_high", "observed", "inside")
    )
    if i is None:
        return nothing
    if not known:
        return nothing | {"held_out": table.names[i], "observed": float(table.means[i])}
    value, (low, high) = one.fit.predicted(table.x[i], table.t[i], len(table.seeds[i]))
    observed = float(table.means[i])
    return {
        "held_out": table.names[i],
        "predicted": value,
        "predicted_low": low,
        "predicted_high": high,
        "observed": observed,
        "inside": "yes" if low <= observed <= high else "no",
    }


def _printed_law(one: FittedSurface, row: Mapping[str, Any]) -> dict[str, str]:
    def told(name: str) -> str:
        return with_interval(row[name], (row[f"{name}_low"], row[f"{name}_high"]))

    of = f"1 − {label(one.metric)}" if is_turned(one.metric) else label(one.metric)
    return {
        "cells": f"{one.surface.name} ({row['cells']})",
        "L": f"{of}, over K and {one.surface.second}",
        **{title: told(name) for title, name in (("E", "E"), ("α", "alpha"), ("β", "beta"))},
        "not identified": row["not_identified"] or ABSENT,
        "misfit": number(row["misfit"]),
        "held out: predicted": told("predicted"),
        "observed": number(row["observed"]),
        "inside": row["inside"] or ABSENT,
    }


def _cell_rows(one: FittedSurface) -> Iterator[dict[str, Any]]:
    table = one.table
    law = one.fit.law.at(table.x, table.t)
    for i, name in enumerate(table.names):
        yield {
            "cell": name,
            "law": f"L(K, {one.surface.second})",
            "metric": one.metric,
            "K": int(table.x[i]),
            "T": float(table.t[i]) if one.surface.second == "T" else None,
            "L0": float(table.t[i]) if one.surface.second == "L0" else None,
            "loss": float(table.means[i]),
            "fitted": float(law[i]),
            "residual": float((table.means[i] - law[i]) / table.scale[i]),
            "held_out": "yes" if i == one.held_out else "no",
        }


def _budget_rows(one: FittedSurface) -> Iterator[dict[str, Any]]:
    fit, cost, name = one.fit, one.surface.cost, one.surface.family
    table = fit.table
    identified = not not_identified(one)
    largest = float((cost.per_token(one.table.x) * one.table.t).max())
    curves = budgets(table.x, table.t, cost)
    on_law = fit.law.at(table.x, table.t)[None]
    for compute in [*curves, *(largest * times for times in LARGER)]:
        best, draws = (optimum(law, cost, compute) for law in (fit.law, fit.resampled))
        row: dict[str, Any] = {"family": name, "at": one.surface.at or None, "operations": compute}
        row["beyond"] = "yes" if compute not in curves else "no"
        for column, value, values in zip(("K", "T", "fvu"), best, draws, strict=True):
            low, high = _bounds(values) if identified else (np.nan, np.nan)
            row |= {column: float(value[0]) if identified else np.nan}
            row |= {f"{column}_low": low, f"{column}_high": high}
        parabola, biased, parabolas = (
            by_parabola(table.x, table.t, losses, cost, compute)
            for losses in (table.means[None], on_law, fit.losses)
        )
        low, high = _bounds(parabolas)
        row |= {"approach_2_K": float(parabola[0]), "approach_2_K_low": low}
        row |= {"approach_2_K_high": high}
        row["approach_2_bias"] = float(biased[0] / best[0][0]) if identified else np.nan
        yield row


def _printed_budgets(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cells": row["family"] + (f", {row['at']}" if row["at"] else ""),
                "C": f"{row['operations']:.3g}" + (" (beyond)" if row["beyond"] == "yes" else ""),
                **{
                    title: with_interval(row[name], (row[f"{name}_low"], row[f"{name}_high"]))
                    for title, name in (
                        ("K*", "K"), ("T*", "T"), ("FVU", "fvu"),
                        ("K* by Approach 2", "approach_2_K"),
                    )
                },
                "its bias": number(row["approach_2_bias"]),
            }
            for row in frame.to_dict("records")
        ]
    )  # fmt: skip
