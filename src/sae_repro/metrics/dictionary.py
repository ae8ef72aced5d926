"""The dictionary by itself: each atom's nearest neighbour, and the bits that a code costs."""

from sae_repro.metrics.metric import COSINE, FRACTION, Metric

CHOICE = "dictionary"
BITS = "bits per token"
COMPRESSION = "after Ayonrinde et al. 2024, arXiv:2410.11179"

DICTIONARY = (
    Metric(
        name="decoder_max_cosine",
        definition="mean over latents that fire of the cosine with the nearest other atom",
        unit=COSINE,
        choice=CHOICE,
        denominator="decoder_latents",
        interval="bootstrap over latents",
        better="lower",
        controls="sparse",
        shown=("structure.md",),
    ),
    Metric(
        name="decoder_near_copy_fraction",
        definition="latents that fire whose nearest other atom has a cosine above .9",
        unit=FRACTION,
        choice=CHOICE,
        denominator="decoder_latents",
        interval="Wilson over latents",
        better="lower",
        controls="none",
        shown=("structure.md", "findings: above 0"),
    ),
    Metric(
        name="description_length",
        definition="entropy of which latents fire and of their values, rounded so coarsely that "
        "the rounding costs 1 % of the variance; the decoder's own cost is left out",
        unit=BITS,
        source=COMPRESSION,
        choice=CHOICE,
        denominator="description_tokens",
        interval="bootstrap over latents",
        better="lower",
        shown=("structure.md",),
    ),
    Metric(
        name="description_length_firing",
        definition="the part of description_length that says which latents fire",
        unit=BITS,
        source=COMPRESSION,
        choice=CHOICE,
        denominator="description_tokens",
        interval="bootstrap over latents",
        better="lower",
    ),
    Metric(
        name="description_length_values",
        definition="the part of description_length that gives their values",
        unit=BITS,
        source=COMPRESSION,
        choice=CHOICE,
        denominator="description_tokens",
        interval="bootstrap over latents",
        better="lower",
    ),
)
