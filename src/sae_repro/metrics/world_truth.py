"""Metrics of worlds that a spec file describes, of the stage `control`; no root study has them."""

from sae_repro.metrics.metric import COSINE, FRACTION, Better, Metric

SYNTH = "Chanin and Garriga-Alonso 2026, arXiv:2602.14687"
SPARSE = "Chanin and Garriga-Alonso 2025, arXiv:2508.16560"
HEDGING = "Chanin, Dulka and Garriga-Alonso 2025, arXiv:2505.11756"


def _row(name: str, definition: str, unit: str, better: Better, source: str = "ours") -> Metric:
    return Metric(
        name=name,
        definition=definition,
        unit=unit,
        source=source,
        choice="control",
        interval="Student over seeds",
        better=better,
    )


WORLDS = (
    _row(
        "mcc",
        "mean |cosine| of decoder rows and atoms in the one-to-one matching where it is largest",
        FRACTION, "higher", SYNTH,
    ),
    _row(
        "latent_f1", "F1 of a latent's firing for its nearest atom by |cosine|, mean over latents; "
        "a dead one's is 0", FRACTION, "higher", SYNTH,
    ),
    _row("latent_precision", "its precision", FRACTION, "higher", SYNTH),
    _row("latent_recall", "its recall", FRACTION, "higher", SYNTH),
    _row("uniqueness", "atoms that are some latent's nearest, over latents", FRACTION, "higher",
         SYNTH),
    _row("l0_ratio", "L0 over the world's own", "ratio", "none"),
    _row(
        "hedging", "how much more a latent's row leans on a second atom than its own atom does, "
        "mean over latents that fire", COSINE, "lower", HEDGING,
    ),
    _row(
        "composed_fraction", "latents that fire whose row lies in the plane of two atoms (.9 of "
        "its norm) and along neither (|cosine| below .9)", FRACTION, "lower",
    ),
    _row(
        "decoder_projection", "n-th largest projection of a row onto the decoder, n = K/8, over "
        "the root mean square norm; smallest at the right L0", "ratio", "lower", SPARSE,
    ),
    _row("decoder_pairwise_cosine", "mean |cosine| of two latents that fire", COSINE, "lower",
         SPARSE),
    _row("latents_per_circle", "latents in the plane of a circle", "latents", "none",
         "Michaud, Gorton and McGrath 2025, arXiv:2509.02565"),
)  # fmt: skip
"""Rows of control_ranking.csv, beside those of `CONTROLS`."""
