"""Example latents with the contexts in which they fire, chosen by rule: can a person name them?"""

import html
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_repro.compare.collect import Result
from sae_repro.compare.tables import measured_on, number, unit_of
from sae_repro.files import write_text
from sae_repro.numerics.hashing import least_hash

DRAWN, SELECTIVE = 10, 5
LARGEST = 3
"""Contexts of the largest activations of a latent, of as many documents."""
LEAST_POSITIVES = 10
"""Activations without which a latent has no selectivity, as in the published grid."""
_SEEN = str.maketrans(" \n\r\t", "␣⏎⏎⇥")
"""Of a token that is white space alone."""
_MARKS = re.compile(r"([\\`*_\[\]|~#$])")


def write_examples(folder: Path, results: Sequence[Result], seed: int) -> None:
    """Write examples.md and examples.csv of one SAE; nothing where no cell was trained."""
    chosen = example_cell(results)
    if chosen is None:
        return
    sae = chosen.saes[0]
    latents = pd.read_parquet(sae.evaluated / "latents.parquet")
    contexts = pd.read_parquet(sae.evaluated / "contexts.parquet")
    concepts = _concepts(sae)
    unit = unit_of(chosen)
    rows = []
    lines = []
    for group, latent in example_latents(latents, seed):
        shown = example_contexts(contexts[contexts["latent"] == latent])
        density = float(latents["density"][latents["latent"] == latent].iloc[0])
        frame = shown.assign(chosen=group, density=density)
        concept = concepts.get(latent)
        frame["concept"], frame["M"] = concept or (None, None)
        rows.append(frame)
        means = f"; {_plain(concept[0])}, M {number(concept[1])}" if concept else ""
        lines += [
            f"## {latent}, {group}: fires on {number(density)} of the {unit}{means}",
            "",
            *(_line(context) for context in shown.to_dict("records")),
            "",
        ]
    if not rows:
        return
    columns = ["latent", "chosen", "density", "concept", "M", "kind", "rank", "activation",
               "document", "position", "context_before", "token", "context_after"]  # fmt: skip
    table = pd.concat(rows)[columns]
    write_text(folder / "examples.csv", table.to_csv(index=False, lineterminator="\n"))
    caption = (
        f"# Example latents\n\nOf {sae.name}: of the trained cells with the lowest target L0 on "
        f"{sae.hook}, the one with the lowest FVU (its first seed). Measured on "
        f"{measured_on(results)}. *Drawn*: up to {DRAWN} of the latents that fire on any of "
        f"them, uniformly, by a hash of the study's seed. *Selective*: the {SELECTIVE} with the "
        "largest mean activation / ln(activations + 1), of those with at least "
        f"{LEAST_POSITIVES} activations. None is left out, and none chosen by hand. Under each: "
        f"the largest activations, of {LARGEST} documents, then one from the middle and one from "
        "the lowest quantile of its activations, drawn; the "
        f"{unit.removesuffix('s')} that it fires on is in bold. "
        "After a latent's density: the concept that it fits best, where concepts were measured."
    )
    write_text(folder / "examples.md", caption + "\n\n" + "\n".join(lines))


def example_cell(results: Sequence[Result]) -> Result | None:
    """Of the trained cells on the first one's hook with the lowest target L0, that of least FVU.

    Where no cell has a target, of all of them; None where none was trained to its end.
    """
    trained = [r for r in results if r.ok and not r.negative and r.cell.kind == "trained"]
    here = [r for r in trained if r.hook == trained[0].hook]
    lowest = min((r.cell.l0_target for r in here if r.cell.l0_target is not None), default=None)
    candidates = [r for r in here if r.cell.l0_target == lowest]
    return min(candidates, key=lambda r: r.metrics["fvu"] or 0.0, default=None)


def example_latents(latents: pd.DataFrame, seed: int) -> list[tuple[str, int]]:
    """("drawn" or "selective", latent) of latents.parquet: the drawn ones first, each once."""
    fired = latents["n_fired"].to_numpy(np.int64)
    number_k = latents["latent"].to_numpy(np.int64)
    drawn = [int(k) for k in least_hash(number_k[fired > 0], DRAWN, seed, "compare/examples")]
    ranked = fired >= LEAST_POSITIVES
    selectivity = latents["mean_activation"].to_numpy()[ranked] / np.log(fired[ranked] + 1)
    order = number_k[ranked][np.argsort(-selectivity, kind="stable")]
    selective = [int(k) for k in order if int(k) not in drawn][:SELECTIVE]
    return [*(("drawn", k) for k in sorted(drawn)), *(("selective", k) for k in selective)]


def example_contexts(contexts: pd.DataFrame) -> pd.DataFrame:
    """The rows of one latent's contexts that are shown, by falling activation within a kind."""
    top = contexts[contexts["kind"] == "top"].sort_values("rank")
    sampled = contexts[contexts["kind"] != "top"].sort_values(["quantile", "rank"])
    bins = sampled["quantile"].unique()
    few = [] if len(bins) < 2 else [bins[len(bins) // 2], bins[0]]
    shown: pd.DataFrame = pd.concat(
        [
            top.drop_duplicates("document").head(LARGEST),
            *(sampled[sampled["quantile"] == quantile].head(1) for quantile in few),
        ]
    )
    return shown


def _concepts(sae: Result) -> dict[int, tuple[str, float]]:
    """(concept, M) of each latent that has one."""
    path = sae.evaluated / "monosemantic.parquet"
    if not path.is_file():
        return {}
    frame = pd.read_parquet(path, columns=["latent", "concept", "M"])
    known = frame[frame["concept"].notna() & frame["M"].notna()]
    return {
        int(latent): (str(concept), float(score))
        for latent, concept, score in known.itertuples(index=False)
    }


def _line(context: Mapping[Hashable, Any]) -> str:
    """A context as an item of a list, the activating token in bold."""
    token = str(context["token"])
    core = token.strip()
    before = token[: len(token) - len(token.lstrip())] if core else ""
    after = token[len(token.rstrip()) :] if core else ""
    marked = f"<b>{_plain(core or token.translate(_SEEN))}</b>"
    text = (
        _plain(f"{context['context_before']}{before}") + marked
        + _plain(f"{after}{context['context_after']}")
    )  # fmt: skip
    weak = "" if context["kind"] == "top" else ", sampled"
    return f"- {number(context['activation'])}{weak}: {text.strip()}"


def _plain(text: str) -> str:
    """`text` as Markdown shows it as it is, on one line."""
    return _MARKS.sub(r"\\\1", html.escape(re.sub(r"\s+", " ", text), quote=False))
