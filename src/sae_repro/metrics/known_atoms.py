"""Metrics of the stage `control`: an SAE against atoms that are known."""

from sae_repro.metrics.metric import COSINE, FRACTION, Better, Metric


def _of_control(name: str, definition: str, unit: str, better: Better) -> Metric:
    return Metric(
        name=name,
        definition=definition,
        unit=unit,
        choice="control",
        interval="Student over seeds",
        better=better,
        shown=("control.md",),
    )


CONTROLS = (
    _of_control(
        "matched_cosine",
        "signed cosine of each atom with its latent in a Hungarian match, mean over atoms; 0 "
        "without a latent",
        COSINE,
        "higher",
    ),
    _of_control("f1", "F1 of the matched latent's firing, mean over atoms", FRACTION, "higher"),
    _of_control(
        "hole_rate",
        "P(the parent's latent silent | child), mean over a parent's children and over parents",
        FRACTION,
        "lower",
    ),
    _of_control("parent_recall", "P(a parent's latent fires | parent)", FRACTION, "higher"),
    _of_control(
        "parent_childless_recall",
        "P(a parent's latent fires | parent, no child)",
        FRACTION,
        "higher",
    ),
    _of_control(
        "child_parent_cosine",
        "mean cosine of a child's latent with its parent's true direction; 0 where atoms are "
        "orthogonal and nothing is absorbed",
        COSINE,
        "lower",
    ),
    _of_control("l0", "mean number of latents that fire per row", "latents per row", "none"),
    _of_control("fvu", "Σ‖x − x̂‖² / Σ‖x − x̄‖² on held-out rows", "ratio", "lower"),
    _of_control(
        "revived_fraction",
        "latents that fire again, of the half that was dead from the start",
        FRACTION,
        "higher",
    ),
)
