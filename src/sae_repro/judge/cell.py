"""One cell: which of its latents are asked about, and what the answers come to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.judge.asking import Asked
from sae_repro.judge.auc import agreement
from sae_repro.judge.documents import draw
from sae_repro.judge.parsers import (
    Counts,
    parse_flags,
    parse_simulation,
    parse_specificity,
    read,
)
from sae_repro.judge.questions import Answer
from sae_repro.judge.rows import Rows
from sae_repro.judge.scores import detection, simulation, specificity
from sae_repro.judge.selection import Chosen, choose, rate, selectivity
from sae_repro.judge.summary import detections, simulations, specificities
from sae_repro.judge.windows import Material
from sae_repro.params import Judge


@dataclass(frozen=True)
class Latents:
    """What `evaluate` left of a cell, and the latents chosen from it."""

    alive_k: npt.NDArray[np.bool_]
    chosen: Chosen
    explained: list[int]
    """Of the uniform sample, those to explain."""
    marks: Mapping[int, list[int]]
    """Of each chosen latent, the rows on which its contexts are marked, largest first."""

    @property
    def asked(self) -> list[int]:
        """The chosen latents, each once."""
        return sorted({*self.chosen.top, *self.chosen.bottom, *self.chosen.uniform})


def latents_of(evaluated: Path, rows: Rows, settings: Judge, seed: int) -> Latents:
    """The latents to ask about, from latents.parquet and contexts.parquet."""
    import pandas as pd

    table = pd.read_parquet(evaluated / "latents.parquet", columns=["n_fired", "mean_activation"])
    fired_k = table["n_fired"].to_numpy(np.int64)
    sum_k = table["mean_activation"].fillna(0.0).to_numpy(np.float64) * fired_k
    alive_k = fired_k > 0
    chosen = choose(selectivity(sum_k, fired_k), alive_k, seed,
                    extremes=settings.extremes, uniform=settings.uniform)  # fmt: skip
    n = settings.latents if settings.scores else 0
    # the same hash as the sample's: explained latents are a part of it
    explained = draw(chosen.uniform, n, seed, "judge", "uniform")
    contexts = pd.read_parquet(
        evaluated / "contexts.parquet", columns=["latent", "document", "position"]
    )
    wanted = {*chosen.top, *chosen.bottom, *chosen.uniform}
    contexts = contexts[contexts["latent"].isin(wanted)].drop_duplicates()
    found = rows.find(contexts["document"].to_numpy(), contexts["position"].to_numpy())
    by_latent = pd.Series(found).groupby(contexts["latent"].to_numpy(), sort=True)
    marks = {int(str(latent)): group.tolist() for latent, group in by_latent}
    return Latents(alive_k, chosen, sorted(explained), marks)


@dataclass(frozen=True)
class Explained:
    """A latent, its explanation, and the questions and answers that scored it."""

    material: Material
    explanation: str | None
    tests: Mapping[str, list[Asked]]
    answers: Mapping[str, list[Answer]]


def rates_part(latents: Latents, labels: Mapping[int, str | None]) -> dict[str, Any]:
    """The rates over the extremes, as published, and over the uniform sample."""
    chosen = latents.chosen
    groups = {
        "extremes": [*chosen.top, *chosen.bottom],
        "top": chosen.top,
        "bottom": chosen.bottom,
        "uniform": chosen.uniform,
    }
    return {name: asdict(rate([labels[k] for k in group])) for name, group in groups.items()}


def agreement_part(
    evaluated: Path, latents: Latents, labels: Mapping[int, str | None], seed: int
) -> dict[str, Any] | None:
    """AUC of M over the uniform sample; None where M was not measured."""
    import pandas as pd

    path = evaluated / "monosemantic.parquet"
    if not path.is_file():
        return None
    m_k = pd.read_parquet(path, columns=["M"])["M"].to_numpy(np.float64)
    return agreement({k: labels[k] for k in latents.chosen.uniform}, m_k, seed)


def scores_part(
    explained: Sequence[Explained], settings: Judge, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, dict[str, int]]]:
    """(scores over all latents, an entry per latent, what became of the answers)."""
    found: dict[str, list[Any]] = {}
    entries, counts = [], dict[str, list[Counts]]()
    for latent in explained:
        entry: dict[str, Any] = {
            "latent": latent.material.latent,
            "explanation": latent.explanation,
            "contexts": _sizes(latent.material),
        }
        for score, asked in latent.tests.items():
            value, count = _score(score, asked, latent.answers[score], latent.material, settings)
            entry[score] = asdict(value)
            found.setdefault(score, []).append(value)
            counts.setdefault(score, []).append(count)
        entries.append(entry)
    return (
        {score: _summary(score, values, settings, seed) for score, values in found.items()},
        entries,
        {score: _total(parts) for score, parts in counts.items()},
    )


def _sizes(material: Material) -> dict[str, int]:
    return {
        name: len(getattr(material, name))
        for name in ("explain", "positives", "random", "hard", "wrong")
    }


def _score(
    score: str,
    asked: Sequence[Asked],
    answers: Sequence[Answer],
    material: Material,
    settings: Judge,
) -> tuple[Any, Counts]:
    """The value of one score for one latent, and what became of its answers."""
    bins = [one.bin for one in asked]
    if score == "specificity":
        digits, counts = read(answers, parse_specificity)
        return specificity(bins, digits, settings.quantiles + 1), counts
    parse = parse_simulation if score == "simulation" else parse_flags
    lists, parts = [], []
    for one, answer in zip(asked, answers, strict=True):
        (values,), count = read([answer], partial(parse, n=len(one.truth)))
        lists.append(values)
        parts.append(count)
    total = Counts(**_total(parts))
    if score == "simulation":
        true = [list(map(float, one.truth)) for one in asked]
        return simulation(true, lists, bins, material.population), total
    return detection([list(map(int, one.truth)) for one in asked], lists), total


def _summary(score: str, found: Sequence[Any], settings: Judge, seed: int) -> dict[str, Any]:
    if score == "specificity":
        return specificities(found, settings.quantiles + 1)
    return simulations(found, seed) if score == "simulation" else detections(found, seed)


def _total(parts: Sequence[Counts]) -> dict[str, int]:
    return {
        name: sum(getattr(part, name) for part in parts)
        for name in ("parsed", "unparsable", "faults")
    }
