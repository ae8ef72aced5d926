"""Metrics of the stage `control`: an SAE against atoms that are known."""

from sae_repro.metrics.metric import COSINE, FRACTION, Better, Metric, Place


def _of_control(
    name: str,
    definition: str,
    unit: str,
    better: Better,
    shown: tuple[Place, ...] = ("control.md",),
) -> Metric:
    return Metric(
        name=name,
        definition=definition,
        unit=unit,
        choice="control",
        interval="Student over seeds",
        better=better,
        shown=shown,
    )


def _as_on_text(name: str, definition: str, unit: str, better: Better) -> Metric:
    """What `evaluate` measures on text, with atoms as concepts: for the cards of METRICS.md."""
    return _of_control(name, definition, unit, better, shown=())


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
    _of_control(
        "loss_change",
        "fall of the loss from one tenth of the steps to the next, the last before the learning "
        "rate decays, over its level",
        "ratio",
        "none",
        shown=(),
    ),
    _of_control(
        "settled",
        "trials whose loss_change is below 1 %, as far as the noise of the batches lets one see: "
        "by two standard errors",
        FRACTION,
        "higher",
    ),
    _as_on_text("dead_fraction_never", "latents that fire on no held-out row", FRACTION, "lower"),
    _as_on_text(
        "coverage",
        "atoms with a latent of φ ≥ .5, the latent chosen on other rows",
        FRACTION,
        "higher",
    ),
    _as_on_text(
        "recall_at_p80_mean",
        "mean over atoms of the best recall of one latent at precision ≥ .8, chosen on other rows",
        FRACTION,
        "higher",
    ),
    _as_on_text(
        "monosemantic_fraction",
        "latents with M ≥ .7: M is the chance-corrected fraction of activation mass on rows with "
        "its one atom, chosen on other rows",
        FRACTION,
        "higher",
    ),
    _as_on_text(
        "monosemantic_fraction_alive",
        "latents with M ≥ .7 among those that fire",
        FRACTION,
        "higher",
    ),
    _as_on_text(
        "monosemantic_mean",
        "mean M of latents that fire",
        "chance-corrected, at most 1",
        "higher",
    ),
    _as_on_text(
        "probe_auc_1",
        "mean over atoms of the AUC of one latent, chosen on other rows",
        FRACTION,
        "higher",
    ),
    _as_on_text(
        "decoder_max_cosine",
        "mean over latents that fire of the cosine with the nearest other atom",
        COSINE,
        "lower",
    ),
    _as_on_text(
        "decoder_near_copy_fraction",
        "latents that fire whose nearest other atom has a cosine above .9",
        FRACTION,
        "lower",
    ),
)
