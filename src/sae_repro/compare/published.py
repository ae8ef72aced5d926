"""Published numbers shown beside ours: facts about another model, and no targets."""

SUBJECT = "GPT-2 small, residual stream after layer 6"
SETTING = (
    f"{SUBJECT}, OpenWebText-10k, 20 epochs, ReLU + L1, resampling every 25,000 steps; dead = "
    "every activation < 0.07"
)
JUDGED_LATENTS = 50
INTERVAL_AT_08 = "[0.670, 0.888]"
"""The 95 % Wilson interval of 40 in 50."""

LAMBDAS = (1e-2, 1e-4)
EXPANSIONS = (4, 8, 16, 32)
PERCENT = {
    ("dead", False, 1e-2): (13.1, 26.3, 29.3, 35.2),
    ("dead", False, 1e-4): (15.4, 27.5, 33.4, 35.6),
    ("dead", True, 1e-2): (4.8, 3.9, 15.7, 26.97),
    ("dead", True, 1e-4): (5.24, 4.51, 11.72, 23.43),
    ("monosemantic", False, 1e-2): (82.0, 86.0, 84.0, 86.0),
    ("monosemantic", False, 1e-4): (82.0, 82.0, 80.0, 78.0),
    ("monosemantic", True, 1e-2): (72.0, 78.0, 88.0, 80.0),
    ("monosemantic", True, 1e-4): (80.0, 78.0, 78.0, 76.0),
}
"""Of latents, by (kind, resampling, λ), one per expansion; monosemantic: by an LLM judge.
In percent, as published."""


def fraction(kind: str, resampling: bool, lambda_: float, expansion: float) -> float | None:
    """The published fraction of "dead" or "monosemantic" latents; None where there is none."""
    row = PERCENT.get((kind, resampling, lambda_))
    if row is None or expansion not in EXPANSIONS:
        return None
    return round(row[EXPANSIONS.index(int(expansion))] / 100, 6)
