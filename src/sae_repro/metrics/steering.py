"""Steering: what a latent makes the model write, beside other ways to move it as far."""

from sae_repro.metrics.metric import Interval, Metric

CHOICE = "steering"
UNIT = "difference of fractions"
SOURCE = "after Templeton et al. 2024, Scaling Monosemanticity; Arad et al. 2025, arXiv:2505.20063"
PROMPTS: Interval = "bootstrap over prompts"
WRITTEN = "fraction of the tokens written that are words of a concept"
EQUAL_KL = "− with random directions added, at equal KL to the unsteered model, mean over concepts"
CONCEPTS, NEXT_CONCEPTS = "steering_concepts", "steering_next_concepts"

STEERING = (
    Metric(
        name="steering_over_random",
        definition=f"{WRITTEN} with the latent clamped that fires on them, {EQUAL_KL}",
        unit=UNIT,
        source=SOURCE,
        choice=CHOICE,
        denominator=CONCEPTS,
        interval=PROMPTS,
        better="higher",
        controls="none",
        shown=("steering.md", "findings: above 0"),
    ),
    Metric(
        name="steering_next_over_random",
        definition=f"{WRITTEN} with the latent clamped that fires on the token before them, "
        f"{EQUAL_KL}",
        unit=UNIT,
        source=SOURCE,
        choice=CHOICE,
        denominator=NEXT_CONCEPTS,
        interval=PROMPTS,
        better="higher",
        controls="none",
        shown=("steering.md", "findings: above 0"),
    ),
    Metric(
        name="steering_means_over_random",
        definition="steering_over_random with the concept's difference of means added in place of "
        "the latent",
        unit=UNIT,
        choice=CHOICE,
        denominator=CONCEPTS,
        interval=PROMPTS,
        shown=("steering.md",),
    ),
    Metric(
        name="steering_next_means_over_random",
        definition="steering_next_over_random with the difference of means of the tokens before "
        "the concept's words",
        unit=UNIT,
        choice=CHOICE,
        denominator=NEXT_CONCEPTS,
        interval=PROMPTS,
        shown=("steering.md",),
    ),
    Metric(
        name="steering_prompt_over_random",
        definition="steering_over_random with guidance by a prompt of the concept's words in place "
        "of the latent",
        unit=UNIT,
        source="guidance: Sanchez et al. 2023, arXiv:2306.17806",
        choice=CHOICE,
        denominator=CONCEPTS,
        interval=PROMPTS,
        shown=("steering.md",),
    ),
    Metric(
        name="steering_random_latent_over_random",
        definition="steering_over_random with latents that mean none of the concepts",
        unit=UNIT,
        choice=CHOICE,
        denominator=CONCEPTS,
        interval=PROMPTS,
        shown=("steering.md",),
    ),
    Metric(
        name="steering_zeroed",
        definition=f"{WRITTEN} with the latent set to 0 that fires on them, − unsteered, mean over "
        "concepts; not at equal KL",
        unit=UNIT,
        choice=CHOICE,
        denominator=CONCEPTS,
        interval=PROMPTS,
        shown=("steering.md",),
    ),
    Metric(
        name="steering_next_zeroed",
        definition="the same of the latent that fires on the token before them",
        unit=UNIT,
        choice=CHOICE,
        denominator=NEXT_CONCEPTS,
        interval=PROMPTS,
        shown=("steering.md",),
    ),
)
