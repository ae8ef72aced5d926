"""Monosemanticity: each latent against the concept bank."""

from sae_repro.metrics.metric import FRACTION, Metric

CHOICE = "monosemanticity"

CLASSES = {
    "dead": "never fires",
    "rare": "fires in fewer than 25 documents of a half",
    "dense": "fires on more than 20 % of tokens",
    "monosemantic_complete": "M ≥ .7 and φ ≥ .7",
    "monosemantic_narrow": "M ≥ .7, φ below: a split or an absorbing latent",
    "polysemantic": "M < .7",
    "not_testable": "the bank holds no concept",
}
"""The classes of latents, in order of precedence; counted as `latents_<class>`."""

MONOSEMANTICITY = (
    Metric(
        name="monosemantic_fraction",
        definition="latents with M ≥ .7 (complete or narrow): M is the chance-corrected fraction "
        "of a latent's activation mass that carries its one concept, chosen on other documents",
        unit=FRACTION,
        choice=CHOICE,
        denominator="latents",
        interval="Wilson over latents",
        better="higher",
        shown=("metrics.json", "cells.md", "monosemantic.md", "MLflow chart"),
    ),
    Metric(
        name="monosemantic_fraction_alive",
        definition="latents with M ≥ .7 among those that fire",
        unit=FRACTION,
        choice=CHOICE,
        denominator="latents_alive",
        interval="Wilson over latents",
        better="higher",
        shown=("monosemantic.md", "findings: against controls", "findings: at equal target L0"),
    ),
    Metric(
        name="monosemantic_fraction_scored",
        definition="latents with M ≥ .7 among those whose class M decides: not dead, rare or dense",
        unit=FRACTION,
        choice=CHOICE,
        denominator="latents_scored",
        interval="Wilson over latents",
        better="higher",
        shown=("monosemantic.md",),
    ),
    Metric(
        name="monosemantic_mean",
        definition="mean M of latents that fire; one that is silent on a half counts 0",
        unit="chance-corrected, at most 1",
        choice=CHOICE,
        denominator="latents_alive",
        interval="bootstrap over latents",
        better="higher",
        shown=("cells.md", "monosemantic.md"),
    ),
)
