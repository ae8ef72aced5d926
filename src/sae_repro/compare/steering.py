"""steering: do latents that mean a class of words make the model write it? By the grammar's labels.

A row per cell, concept and condition, differences over seeds; what failed is among them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import ABSENT, number, write_table
from sae_repro.files import write_text
from sae_repro.numerics.intervals import Interval, student
from sae_repro.numerics.seeds import LEAST_SEEDS

ROLES = {"current": "on its words", "next": "on the token before them"}
MEAN = "mean"
METRICS = {
    ("current", "latent"): "steering_over_random",
    ("current", "difference of means"): "steering_means_over_random",
    ("current", "prompt"): "steering_prompt_over_random",
    ("current", "random latent"): "steering_random_latent_over_random",
    ("current", "latent set to 0"): "steering_zeroed",
    ("next", "latent"): "steering_next_over_random",
    ("next", "difference of means"): "steering_next_means_over_random",
    ("next", "latent set to 0"): "steering_next_zeroed",
}
"""The means over concepts."""
OVER_RANDOM = ("latent", "difference of means", "prompt", "random latent")
ZEROED = "latent set to 0"


def write_steering(folder: Path, results: Sequence[Result]) -> None:
    """steering.csv and steering.md; nothing where no cell was to be steered."""
    chosen = [r for r in results if any(sae.steering is not None for sae in r.saes)]
    if not chosen:
        return
    rows = [row for r in chosen for row in _rows(r)]
    unmeasured = "".join(f"\n\nNot measured: {line}." for line in _unmeasured(chosen))
    if not rows:
        write_text(folder / "steering.md", f"# Steering{unmeasured}\n")
        return
    frame = pd.DataFrame(rows)
    write_table(folder, "steering", frame, _caption(chosen, frame) + unmeasured, _printed(frame))


def _caption(results: Sequence[Result], frame: pd.DataFrame) -> str:
    counts = next(c for r in results for sae in r.saes if (c := sae.measured["counts"]).get(
        "steering_prompts"))  # fmt: skip
    equal = frame[frame["condition"].isin(OVER_RANDOM)]["kl"].dropna().mean()
    return (
        "# Steering\n\nDoes the model write a class of words where a latent that means it is "
        "clamped? The latent is the one that agrees best (φ) with the class, or with the token "
        "before its words, on one half of the held-out stories; on the other, each SAE continues "
        f"{counts['steering_prompts']} beginnings of its own: {counts['steering_tokens']:,} tokens "
        "per condition, by the same random numbers. Unsteered, random direction: fraction of them "
        "that are words of the class, by the grammar. Then that fraction less that of random "
        "directions, all as strong as moves the model's predictions by KL(unsteered ‖ steered) "
        f"{equal:.2g} nats on held-out stories (strengths: CSV). Prompt: guidance by eight words "
        "of the class ahead of the text. Last: the latent set to 0, less unsteered, and its own "
        "KL. Brackets: 95 % interval, over seeds where there are several (each with stories, "
        "directions and random latents of its own), else over beginnings; one that holds 0 shows "
        "no difference."
    )


def _rows(r: Result) -> Iterator[dict[str, Any]]:
    """A row per concept and condition of a cell, then the means over concepts."""
    frames = [frame for sae in r.saes if (frame := sae.steering) is not None]
    found = [frame[frame["condition"].notna()] for frame in frames]
    found = [frame for frame in found if len(frame)]
    if not found:
        return
    for key, group in pd.concat(found).groupby(["concept", "role", "condition"], sort=False):
        yield {"cell": r.name, **dict(zip(("concept", "role", "condition"), key, strict=True)),
               **_over_seeds(group)}  # fmt: skip
    for (role, condition), metric in METRICS.items():
        value = r.metrics.get(metric)
        if value is not None:
            low, high = r.interval(metric) or (None, None)
            yield {"cell": r.name, "concept": MEAN, "role": role, "condition": condition,
                   "seeds": len(r.by_seed(metric)), "difference": value, "low": low, "high": high,
                   "interval_over": _interval_over(len(r.by_seed(metric)))}  # fmt: skip


def _over_seeds(group: pd.DataFrame) -> dict[str, Any]:
    """The row of one condition, whose SAEs are the rows of `group`."""
    measured = group[group["difference"].notna()]
    values = measured["difference"].tolist()
    bounds: Interval | None = None
    if len(values) >= LEAST_SEEDS:
        bounds = _of_seeds(values, measured["tokens"])
    elif len(values) == 1:
        bounds = float(measured["low"].iloc[0]), float(measured["high"].iloc[0])
    low, high = bounds or (None, None)
    latents = [str(int(k)) for k in group["latent"].dropna()]
    reasons = group["reason"].dropna().unique()
    return {
        "seeds": len(values) or int(group["share"].notna().sum()),
        "share": _mean(group["share"]),
        "against": next(iter(group["against"].dropna()), None),
        "difference": _mean(measured["difference"]),
        "low": low,
        "high": high,
        "interval_over": _interval_over(len(values)) if bounds else None,
        "strength": _mean(group["strength"]),
        "kl": _mean(group["kl"]),
        "latents": " ".join(latents) or None,
        "phi": _mean(group["phi"]),
        "reason": "; ".join(reasons) or None,
    }


def _of_seeds(values: Sequence[float], tokens: "pd.Series[Any]") -> Interval:
    """Student's, of seeds that may differ by less than one word where they agree exactly."""
    mean, low, high = student(values)
    half = float((1 / (2 * tokens)).mean())
    return min(low, mean - half), max(high, mean + half)


def _interval_over(seeds: int) -> str | None:
    return "seeds" if seeds >= LEAST_SEEDS else "beginnings" if seeds == 1 else None


def _mean(values: "pd.Series[Any]") -> float | None:
    known = values.dropna()
    return float(np.mean(known)) if len(known) else None


def _printed(frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (cell, concept, role), group in frame.groupby(["cell", "concept", "role"], sort=False):
        by: dict[str, Mapping[Any, Any]] = {
            str(row["condition"]): row for row in group.to_dict("records")
        }
        latent = by.get("latent", {})
        rows.append(
            {
                "cell": cell,
                "class": concept,
                "latent fires": ROLES[str(role)],
                "φ": number(latent.get("phi")),
                "unsteered": number(by.get("unsteered", {}).get("share")),
                "random direction": number(by.get("random direction", {}).get("share")),
                **{
                    f"{'latent clamped' if name == 'latent' else name} − random": _difference(
                        by.get(name)
                    )
                    for name in OVER_RANDOM
                },
                "latent set to 0 (KL)": _zeroed(by.get(ZEROED)),
            }
        )
    return pd.DataFrame(rows)


def _difference(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return ABSENT
    if row["difference"] is None or row["difference"] != row["difference"]:
        return str(row["reason"]) if isinstance(row["reason"], str) else ABSENT
    text, low, high = _signed(row["difference"]), row["low"], row["high"]
    return text if low is None or low != low else f"{text} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def _zeroed(row: Mapping[Any, Any] | None) -> str:
    kl = number(None if row is None else row["kl"], 2)
    return _difference(row) + (f" ({kl})" if kl != ABSENT else "")


def _unmeasured(results: Sequence[Result]) -> Iterator[str]:
    """Cells with a reason and nothing else, a line per reason."""
    cells: dict[str, list[str]] = {}
    for r in results:
        for sae in r.saes:
            frame = sae.steering
            if frame is not None and frame["condition"].isna().all():
                for reason in frame["reason"]:
                    cells.setdefault(str(reason), []).append(sae.name)
    for reason, names in cells.items():
        yield f"{', '.join(names)}: {reason}"
