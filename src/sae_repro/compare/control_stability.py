"""The section of control.md on what stability over seeds says of a latent's truth."""

from pathlib import Path

import pandas as pd

from sae_repro.compare.tables import number, with_interval
from sae_repro.files import write_text

PREDICTS = 0.9
"""AUC from which on stability is said to predict recovery."""
DEFINITIONS = (
    "All seeds have the oracle's same atoms; their trees are one, turned, and latents are compared "
    "in the coordinates of its atoms. A latent *recovers* an atom if, matched one to "
    "one, the cosine of its decoder row and the F1 of its firing are both above .9. Its "
    "*stability* is the |cosine| with its partner in another seed, as in consistency.md; *AUC* is "
    "the probability that a latent which recovers an atom is more stable than one which does not, "
    "ties one half: mean over the pairs of seeds [95 % interval: jackknife over seeds]. *Shared* "
    "latents are each other's nearest by encoder and decoder in all seeds, cosine > .7. A dash: "
    "all latents recover an atom, or none does. A stable latent that recovers none is an error "
    "that every seed makes, such as the sum of a parent and its child: stability cannot tell it."
)


def stability_section(folder: Path, frame: pd.DataFrame) -> str:
    """The section of control.md; `frame`, stability.csv of the stage, as control_stability.csv."""
    text = frame.to_csv(index=False, lineterminator="\n")
    write_text(folder / "control_stability.csv", text)
    others = frame["latents"] - frame["shared"]
    shown = pd.DataFrame(
        {
            "world": frame["world"],
            "recipe": frame["recipe"],
            "seeds": frame["seeds"],
            "latents": frame["latents"],
            "recover an atom": _of(frame["recovered"], frame["latents"]),
            "AUC of stability ↑": [
                with_interval(row["stability_auc"],
                              (row["stability_auc_low"], row["stability_auc_high"]))
                for row in frame.to_dict("records")
            ],
            "of shared": _of(frame["shared_recovered"], frame["shared"]),
            "of the others": _of(frame["recovered"] - frame["shared_recovered"], others),
        }
    )  # fmt: skip
    table = shown.to_markdown(index=False, disable_numparse=True)
    return f"## Does stability predict recovery?\n\n{_answer(frame)}\n\n{DEFINITIONS}\n\n{table}\n"


def _of(part: pd.Series, whole: pd.Series) -> list[str]:
    """`11 of 60 (0.183)`."""
    return [
        f"{p} of {n}" + (f" ({number(p / n)})" if n else "")
        for p, n in zip(part.tolist(), whole.tolist(), strict=True)
    ]


def _answer(frame: pd.DataFrame) -> str:
    """In how many recipes it does, beyond what another seed may turn."""
    lines = []
    for world, group in frame.groupby("world", sort=False):
        known = group[group["stability_auc"].notna()]
        yes = known[known["stability_auc_low"] >= PREDICTS]["recipe"]
        no = known[known["stability_auc_high"] < PREDICTS]["recipe"]
        lines.append(
            f"- {world}: an AUC of {PREDICTS:g} is reached in {len(yes)} of {len(known)} recipes"
            f"{_named(yes)}, missed in {len(no)}{_named(no)}, undecided in the others, by their "
            "intervals."
        )
    return "\n".join(lines)


def _named(recipes: pd.Series) -> str:
    return f" ({', '.join(recipes)})" if len(recipes) else ""
