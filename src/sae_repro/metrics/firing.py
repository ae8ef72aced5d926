"""Firing: how many latents are dead, and how often the others fire."""

from sae_repro.metrics.metric import FRACTION, Metric

FIRING = (
    Metric(
        name="dead_fraction_never",
        definition="latents that fire on none of the evaluated tokens",
        unit=FRACTION,
        denominator="latents",
        interval="Wilson over latents",
        better="lower",
        controls="none",
        shown=("metrics.json", "cells.md", "matched_l0.md"),
    ),
    Metric(
        name="dead_fraction_below",
        definition="latents whose largest z stays below evaluate.dead_threshold; depends on the "
        "activations' scale",
        unit=FRACTION,
        source="the published GPT-2 grid (threshold .07)",
        denominator="latents",
        interval="Wilson over latents",
        better="lower",
        controls="none",
        shown=("cells.md",),
    ),
    Metric(
        name="dead_fraction_below_relative",
        definition="latents whose largest z stays below 1e-3 · √(mean ‖x‖²), which follows the "
        "activations' scale",
        unit=FRACTION,
        denominator="latents",
        interval="Wilson over latents",
        better="lower",
        controls="none",
    ),
    Metric(
        name="density_mean",
        definition="mean over latents of the fraction of tokens on which each fires",
        unit=FRACTION,
        denominator="latents",
    ),
    Metric(
        name="density_median",
        definition="median over latents of the fraction of tokens on which each fires",
        unit=FRACTION,
        denominator="latents",
    ),
    Metric(
        name="density_max",
        definition="largest fraction of tokens on which a latent fires",
        unit=FRACTION,
        denominator="latents",
    ),
)
