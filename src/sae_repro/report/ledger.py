"""The claims of others as cards: whether each is so here, with its interval drawn."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_repro.report.parts import Claim, Maker, Run, Section, caption, printed, read_table

FIGURE_OF = {
    "dead_fraction": ("dead_", "death", "dies"),
    "training_curves": ("steps", "tokens"),
    "consistency": ("pw_mcc", "shared_fraction", "stability"),
    "coverage": ("coverage",),
    "density": ("density",),
    "monosemantic_by_quantile": ("kappa",),
    "frontier": ("fvu", "l0", "kl", "ce_recovered"),
}
"""The figure that shows what a claim's statistic is about, by words of the statistic."""
FACTS = {"statistic": "Statistic", "reason": "Reason", "command": "Decide it again"}
_WITHIN = re.compile(r"within \[(?P<low>[^,]+), (?P<high>[^\]]+)\]")


def claims_section(maker: Maker, figures: Path) -> Section:
    """The claims of reports/tables/claims.csv."""
    claims = [_claim(maker, figures, row) for row in _rows(maker.tables)]
    counted = Counter(claim.verdict for claim in claims)
    lead = [Run(", ".join(f"{n} {verdict}" for verdict, n in counted.most_common()) + ".")]
    method = caption(maker.tables / "claims.md")
    return Section("claims", "Claims of others", [lead] if claims else (), method, claims=claims)


def _rows(tables: Path) -> list[dict[str, Any]]:
    frame = read_table(tables, "claims")
    # an absent value is None, not NaN
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _claim(maker: Maker, figures: Path, row: Mapping[str, Any]) -> Claim:
    statistic = str(row.get("statistic") or "")
    n, over = row.get("n"), row.get("over")
    value = row["value"] if row["value"] is not None else float("nan")
    return Claim(
        name=str(row["claim"]),
        verdict=str(row["verdict"]),
        value=maker.number("claims", value, (row["low"], row["high"])),
        n=f"n = {printed(n)} {over}" if n is not None else "",
        expected=str(row["expected"] or ""),
        quote=str(row["quote"] or ""),
        source=str(row["source"] or ""),
        facts=[(name, str(row[column])) for column, name in FACTS.items() if row.get(column)],
        figure=_figure_of(statistic, figures),
    )


def _figure_of(statistic: str, figures: Path) -> str:
    for name, words in FIGURE_OF.items():
        if any(word in statistic for word in words) and (figures / f"{name}.svg").is_file():
            return name
    return ""


def claim_charts(tables: Path) -> dict[str, list[dict[str, Any]]]:
    """Per claim with a value, its interval over what was expected, as an option of ECharts."""
    found = {}
    for row in _rows(tables):
        expected = bounds(str(row["expected"] or ""))
        if row["value"] is not None and expected is not None:
            low, high = (row[k] if row[k] is not None else row["value"] for k in ("low", "high"))
            found[f"claim-{row['claim']}"] = [_option(row["value"], (low, high), expected)]
    return found


def bounds(expected: str) -> tuple[float, float] | None:
    """The values that agree with a claim: `> 0`, `< 0.07`, `within [0.7, 0.9]`; None of others."""
    if found := _WITHIN.fullmatch(expected):
        return float(found["low"]), float(found["high"])
    sign, _, value = expected.partition(" ")
    try:
        bound = float(value)
    except ValueError:
        return None
    return {">": (bound, math.inf), "<": (-math.inf, bound)}.get(sign)


def _option(
    value: float, interval: tuple[float, float], expected: tuple[float, float]
) -> dict[str, Any]:
    finite = [x for x in (*interval, *expected, value) if math.isfinite(x)]
    margin = 0.2 * (max(finite) - min(finite)) or abs(value) * 0.2 or 1.0
    least, most = min(finite) - margin, max(finite) + margin
    low, high = (min(max(bound, least), most) for bound in expected)
    return {
        "grid": {"top": 6, "bottom": 24, "left": 12, "right": 12},
        "tooltip": {"show": False},
        "xAxis": {"type": "value", "min": least, "max": most, "splitNumber": 3,
                  "axisLabel": {"showMinLabel": False, "showMaxLabel": False},
                  "splitLine": {"show": False}},
        "yAxis": {"type": "value", "min": -1, "max": 1, "show": False},
        "series": [
            {"type": "line", "data": [[interval[0], 0], [interval[1], 0]], "symbol": "rect",
             "symbolSize": [2, 12], "lineStyle": {"width": 3}, "silent": True,
             "markArea": {"silent": True, "itemStyle": {"color": "#11773333"},
                          "data": [[{"xAxis": low}, {"xAxis": high}]]}},
            {"type": "scatter", "data": [[value, 0]], "symbolSize": 11, "silent": True,
             "itemStyle": {"color": "#0072B2"}},
        ],
    }  # fmt: skip
