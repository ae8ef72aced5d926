"""Structure: how latents divide concepts (splitting, holes, absorption, coverage, probes)."""

from sae_repro.metrics.metric import FRACTION, Metric

CHOICE = "structure"
PROBING = "k-sparse probing: Gurnee et al. 2023, arXiv:2305.01610"

STRUCTURE = (
    Metric(
        name="coverage",
        definition="concepts with a latent of φ ≥ .5",
        unit=FRACTION,
        choice=CHOICE,
        denominator="structure_concepts",
        interval="Wilson over concepts",
        better="higher",
        shown=("structure.md", "findings: against controls", "findings: at equal target L0"),
    ),
    Metric(
        name="coverage_<kind>",
        definition="concepts of one kind (token, class, state, …) with a latent of φ ≥ .5",
        unit=FRACTION,
        choice=CHOICE,
        interval="Wilson over concepts",
        better="higher",
    ),
    Metric(
        name="coverage_half_log10_frequency",
        definition="log10 of the concept frequency at which a logistic fit of coverage is one half",
        unit="log10 of a fraction of tokens",
        choice=CHOICE,
        denominator="structure_concepts",
        interval="bootstrap over concepts",
        better="lower",
    ),
    Metric(
        name="hole_rate[_faint]",
        definition="P(parent's latents silent | child) − P(they are | parent, no large child), "
        "mean over testable pairs of parent and child; may be < 0. Silent: a = 0; _faint: a below "
        "5 % of its 99th percentile",
        unit="difference of fractions",
        choice=CHOICE,
        denominator="structure_pairs_testable[_faint]",
        interval="bootstrap over parents",
        better="lower",
        controls="none",
        shown=("structure.md", "findings: above 0", "findings: at equal target L0"),
    ),
    Metric(
        name="absorption_rate[_faint]",
        definition="fraction of a child's tokens with a hole that a latent of the child fills in "
        "the parent's direction, mean over testable pairs; _faint as in hole_rate",
        unit=FRACTION,
        source="after Chanin et al. 2024, arXiv:2409.14507",
        choice=CHOICE,
        denominator="structure_pairs_testable[_faint]",
        interval="bootstrap over parents",
        better="lower",
        controls="none",
        shown=("structure.md", "findings: above 0", "findings: at equal target L0"),
    ),
    Metric(
        name="childless_recall[_faint]",
        definition="how often the parent's latents fire where no large child is, mean over parents "
        "whose dense probe is good enough; _faint as in hole_rate",
        unit=FRACTION,
        choice=CHOICE,
        interval="bootstrap over parents",
        better="higher",
        shown=("structure.md",),
    ),
    Metric(
        name="splitting_mean",
        definition="mean over parents of the latents beyond the first that a k-sparse probe needs",
        unit="latents",
        source="after Chanin et al. 2024, arXiv:2409.14507",
        choice=CHOICE,
        denominator="structure_parents",
        interval="bootstrap over parents",
        better="lower",
        controls="none",
        shown=("structure.md", "findings: at equal target L0"),
    ),
    Metric(
        name="fragmented_fraction",
        definition="concepts of which no precise latent recalls .3 while all precise ones together "
        "recall .8",
        unit=FRACTION,
        choice=CHOICE,
        denominator="structure_concepts",
        interval="Wilson over concepts",
        better="lower",
        controls="none",
        shown=("structure.md", "findings: above 0"),
    ),
    Metric(
        name="recall_at_p80_mean",
        definition="mean over concepts of the best recall of one latent at precision ≥ .8",
        unit=FRACTION,
        choice=CHOICE,
        denominator="structure_concepts",
        interval="bootstrap over concepts",
        better="higher",
        shown=("structure.md",),
    ),
    Metric(
        name="probe_auc_<k>",
        definition="mean over concepts of the test AUC of a balanced logistic probe on k latents",
        unit=FRACTION,
        source=PROBING,
        choice=CHOICE,
        denominator="structure_concepts",
        interval="bootstrap over concepts",
        better="higher",
        shown=("structure.md", "findings: against controls"),
        shown_for={"structure.md": ("1", "5"), "findings: against controls": ("1",)},
    ),
    Metric(
        name="probe_loss",
        definition="mean over concepts of the least cross-entropy of a probe on one latent's "
        "pre-activation, classes balanced",
        unit="nats",
        source="Gao et al. 2024, arXiv:2406.04093, section 4.2",
        choice=CHOICE,
        denominator="structure_concepts",
        interval="bootstrap over concepts",
        better="lower",
        shown=("structure.md",),
    ),
)
