"""The scores of explanations: a row each. An answer that could not be parsed is counted apart."""

from collections.abc import Mapping

from sae_repro.judge.scores.detection import flag_score
from sae_repro.judge.scores.row import Score, ScoringQuestion
from sae_repro.judge.scores.simulation import SIMULATION
from sae_repro.judge.scores.specificity import SPECIFICITY

__all__ = ["SCORES", "Score", "ScoringQuestion"]

SCORES: Mapping[str, Score] = {
    "detection": flag_score("detect", marked=False),
    "fuzzing": flag_score("fuzz", marked=True),
    "simulation": SIMULATION,
    "specificity": SPECIFICITY,
}
