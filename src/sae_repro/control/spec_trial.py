"""A trial on a world of a spec file: its samples, and the measures that only such a world has."""

import numpy as np
import numpy.typing as npt

from sae_repro.autoencoders import SAE
from sae_repro.control.measure import Matching
from sae_repro.control.planned import Trial
from sae_repro.control.spec_world import Drawing, drawing
from sae_repro.control.truth import (
    decoder_projection,
    latents_per_circle,
    pairwise_cosine,
    recovery,
)
from sae_repro.control.worlds import Sample
from sae_repro.numerics.random import generator

ROWS = 20_000
"""Held-out rows and, for thresholds, calibration rows, at most."""
NUMBERS = 40_000_000
"""Of the held-out rows' true activations, which stay in memory, at most."""


def spec_drawing(trial: Trial, study_seed: int) -> Drawing | None:
    """The world of a trial, drawn anew for each seed; None where no spec file describes it."""
    if trial.spec is None:
        return None
    return drawing(trial.spec, *_name(trial, study_seed))


def spec_samples(drawn: Drawing, trial: Trial, study_seed: int) -> dict[str, Sample]:
    """Samples for training, calibration and measuring; the first two without true activations."""
    rows = min(ROWS, max(1, NUMBERS // drawn.world.atoms))

    def rng(part: str) -> np.random.Generator:
        return generator(*_name(trial, study_seed), "rows", part)

    unknown = np.zeros((0, drawn.world.atoms), dtype=np.float32)
    return {
        "train": Sample(drawn.rows(trial.rows, rng("train")), unknown),
        "calibration": Sample(drawn.rows(rows, rng("calibration")), unknown),
        "held_out": drawn.sample(rows, rng("held_out")),
    }


def _name(trial: Trial, study_seed: int) -> tuple[int | str, ...]:
    return study_seed, "control", trial.world, trial.name, trial.seed


def spec_measures(
    trial: Trial, drawn: Drawing, sae: SAE, held_out: Sample, matching: Matching
) -> dict[str, float]:
    """The columns of trials.csv that worlds of spec files have beside those of all."""
    w_dec_kd = sae.weights.W_dec.detach().numpy()
    alive_k: npt.NDArray[np.bool_] = np.any(matching.z_nk > 0, axis=0)
    row = recovery(matching.z_nk, held_out.a_nf, w_dec_kd, drawn.atoms.directions_fd)
    row |= {
        "l0_ratio": matching.l0 / row["true_l0"],
        "decoder_projection": decoder_projection(
            held_out.x_nd, w_dec_kd, sae.weights.b_dec.detach().numpy()
        ),
        "decoder_pairwise_cosine": pairwise_cosine(w_dec_kd, alive_k),
    }
    if drawn.world.circles is not None:
        row["latents_per_circle"] = latents_per_circle(w_dec_kd, drawn.circle_cd, alive_k)
    return row
