"""Words of a concept counted in what was written: rows, differences, and their means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import LEAST_UNITS, interval, sums

if TYPE_CHECKING:
    import pandas as pd

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MEANS = {
    "steering_over_random": ("latent", "current"),
    "steering_next_over_random": ("latent", "next"),
    "steering_means_over_random": ("difference of means", "current"),
    "steering_next_means_over_random": ("difference of means", "next"),
    "steering_prompt_over_random": ("prompt", "current"),
    "steering_random_latent_over_random": ("random latent", "current"),
    "steering_zeroed": ("latent set to 0", "current"),
    "steering_next_zeroed": ("latent set to 0", "next"),
}
"""Metric: the condition and the role whose differences it is the mean of, over concepts."""
UNREACHED = "no strength moves predictions by this KL"
NO_LATENT = "too few tokens with the concept to choose a latent by"
NO_OTHERS = "no other latent fires often enough"


def row(**known: Any) -> dict[str, Any]:
    """A row of steering.parquet, None where nothing is known."""
    columns = (
        "concept", "role", "condition", "latent", "phi", "strength", "kl", "words", "tokens",
        "share", "against", "difference", "low", "high", "reason",
    )  # fmt: skip
    return {**dict.fromkeys(columns), **known}


@dataclass(frozen=True)
class Outcome:
    """What one condition made the model write; `written` is None where no strength had the KL."""

    strength: float | None
    kl: float | None
    written: Counts | None


@dataclass(frozen=True)
class Tally:
    """The words of a concept that one condition wrote, by prompt, beside another's."""

    concept: str
    role: str
    condition: str
    words_n: Counts
    tokens_n: Counts
    """[N] of the prompts, sums over the draws of a random condition; tokens ahead of the end."""
    against: "Tally | None"
    known: dict[str, Any]

    @classmethod
    def of(
        cls, concept: str, role: str, condition: str, outcomes: Sequence[Outcome],
        words: npt.NDArray[np.bool_], ends: Counts, against: "Tally | None", known: dict[str, Any],
        missing: str = UNREACHED,
    ) -> "Tally":  # fmt: skip
        """Of those `outcomes` that wrote; without any, the row's reason is `missing`."""
        counted = [counts(o.written, words, ends) for o in outcomes if o.written is not None]
        nothing = np.zeros(0, dtype=np.int64)
        words_n = sum((w for w, _ in counted[1:]), start=counted[0][0]) if counted else nothing
        tokens_n = sum((t for _, t in counted[1:]), start=counted[0][1]) if counted else nothing
        known = {
            **known,
            "strength": _mean([o.strength for o in outcomes]),
            "kl": _mean([o.kl for o in outcomes]),
        }
        if not counted:
            known["reason"] = missing
        return cls(concept, role, condition, words_n, tokens_n, against, known)

    @property
    def share(self) -> float | None:
        """Of the concept's words among the tokens written; None where none was."""
        return int(self.words_n.sum()) / int(self.tokens_n.sum()) if self.tokens_n.any() else None

    @property
    def difference(self) -> float | None:
        """Of the shares, this less the other's."""
        mine, other = self.share, self.against.share if self.against else None
        return None if mine is None or other is None else mine - other

    def resampled(self, seed: int) -> Floats | None:
        """The difference [B] over resampled prompts, the same for all of an SAE."""
        if self.difference is None or self.against is None or len(self.words_n) < LEAST_UNITS:
            return None
        drawn = sums(
            np.stack([self.words_n, self.tokens_n, self.against.words_n, self.against.tokens_n], 1),
            seed, "steering",
        )  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            difference: Floats = drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3]
        return difference

    def row(self, seed: int) -> dict[str, Any]:
        """Its row of steering.parquet."""
        drawn = self.resampled(seed)
        low, high = (None if drawn is None else interval(drawn)) or (None, None)
        return row(
            concept=self.concept, role=self.role, condition=self.condition,
            words=int(self.words_n.sum()), tokens=int(self.tokens_n.sum()), share=self.share,
            against=self.against and self.against.condition, difference=self.difference,
            low=low, high=high, **self.known,
        )  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def counts(written_nt: Counts, words: npt.NDArray[np.bool_], ends: Counts) -> tuple[Counts, Counts]:
    """(the concept's words, tokens), both [N], ahead of the first end of each text."""
    open_nt = np.cumsum(np.isin(written_nt, ends), axis=1) == 0
    return (words[written_nt] & open_nt).sum(axis=1), open_nt.sum(axis=1)


def summary(frame: "pd.DataFrame", tallies: Sequence[Tally], seed: int) -> Summary:
    """Means over the concepts that have a difference, and their intervals over prompts."""
    metrics: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}
    for name, (condition, role) in MEANS.items():
        mine = [t for t in tallies if (t.condition, t.role) == (condition, role)]
        measured = [t for t in mine if t.difference is not None]
        metrics[name] = float(np.mean([t.difference for t in measured])) if measured else None
        drawn = [d for t in measured if (d := t.resampled(seed)) is not None]
        bounds = interval(np.mean(drawn, axis=0)) if drawn else None
        if bounds is not None:
            intervals[name] = bounds
    latents = frame[frame["condition"] == "latent"]
    reached = latents[latents["difference"].notna()]
    unsteered = [t for t in tallies if t.condition == "unsteered"]
    return Summary(
        metrics,
        {
            "steering_concepts": int((reached["role"] == "current").sum()),
            "steering_next_concepts": int((reached["role"] == "next").sum()),
            "steering_latents_unreached": len(latents) - len(reached),
            "steering_prompts": len(unsteered[0].words_n) if unsteered else 0,
            "steering_tokens": int(unsteered[0].tokens_n.sum()) if unsteered else 0,
        },
        intervals,
    )
