"""Agreement of the SAEs of a cell that differ in their seed alone."""

from sae_repro.metrics.metric import CORRELATION, COSINE, FRACTION, Metric

MATCHED = "consistency_matched"

CONSISTENCY = (
    Metric(
        name="pw_mcc",
        definition="pairwise mean correlation coefficient: decoder rows of the alive latents of "
        "two seeds matched one to one (Hungarian) by |cosine|; the mean matched |cosine|, averaged "
        "over all pairs of seeds",
        unit=COSINE,
        source="arXiv:2505.20254",
        choice="consistency",
        denominator=MATCHED,
        interval="jackknife over seeds",
        better="higher",
        controls="sparse",
        shown=("metrics.json", "consistency.md"),
    ),
    Metric(
        name="pw_mcc_all",
        definition="pw_mcc with 0 for the latents of the seed with more of them that are left "
        "without a partner",
        unit=COSINE,
        source="arXiv:2505.20254",
        choice="consistency",
        interval="jackknife over seeds",
        better="higher",
        controls="sparse",
    ),
    Metric(
        name="pw_mcc_null",
        definition="pw_mcc of as many random directions in as many dimensions: 10 draws, "
        "the pairs in turn",
        unit=COSINE,
        choice="consistency",
        denominator=MATCHED,
        interval="of a further draw",
        shown=("consistency.md",),
    ),
    Metric(
        name="shared_fraction",
        definition="alive latents of two seeds whose nearest in the other, by encoder column and "
        "by decoder row, is the same latent, with a decoder cosine > .7; averaged over all pairs "
        "of seeds",
        unit=FRACTION,
        source="arXiv:2501.16615, nearest in place of Hungarian",
        choice="consistency",
        denominator="consistency_latents",
        interval="jackknife over seeds",
        better="higher",
        controls="sparse",
        shown=("consistency.md", "findings: at equal target L0"),
    ),
    Metric(
        name="shared_fraction_null",
        definition="shared_fraction of random directions, as in pw_mcc_null, encoder and decoder "
        "the same",
        unit=FRACTION,
        choice="consistency",
        denominator="consistency_latents",
        interval="of a further draw",
    ),
    Metric(
        name="activation_mcc",
        definition="activations of the alive latents of two seeds matched one to one by "
        "correlation over held-out tokens; the mean matched correlation, averaged over all pairs "
        "of seeds",
        unit=CORRELATION,
        choice="consistency",
        denominator=MATCHED,
        interval="jackknife over seeds",
        better="higher",
        controls="sparse",
        shown=("consistency.md",),
    ),
    Metric(
        name="activation_mcc_null",
        definition="activation_mcc with one seed's tokens shifted to other documents: what as many "
        "latents reach by chance; 3 draws, the pairs in turn",
        unit=CORRELATION,
        choice="consistency",
        denominator=MATCHED,
        interval="of a further draw",
        shown=("consistency.md",),
    ),
)
