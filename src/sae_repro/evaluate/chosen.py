"""What `evaluate.metrics` chooses among: each a function of the first pass's findings.

Every one writes tables of its own into the cell's folder and returns its entries of metrics.json.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.autoencoders import SAE
from sae_repro.evaluate.codes import Codes, scaled
from sae_repro.evaluate.concepts import ConceptBank, load_bank
from sae_repro.evaluate.monosemantic import monosemanticity
from sae_repro.evaluate.monosemantic_summary import Summary, summary
from sae_repro.evaluate.streaming import Batch, Totals
from sae_repro.params import ConceptLabels, model_hook
from sae_repro.store import ActivationStore

if TYPE_CHECKING:
    import pandas as pd

    from sae_repro.evaluate.job import Evaluation
    from sae_repro.evaluate.structure.holes import DenseProbe
    from sae_repro.evaluate.structure.passages import Passages


@dataclass(frozen=True)
class FirstPass:
    """One SAE after its first pass over the validation activations."""

    study: "Evaluation"
    sae: SAE
    store: ActivationStore
    hook: str
    batches: Callable[[], Iterable[Batch]]
    codes: Codes
    mean_d: npt.NDArray[np.float64]
    totals: Totals
    folder: Path

    @cached_property
    def canonical(self) -> Codes:
        """The codes as a = z·‖d_k‖."""
        return scaled(self.codes, self.sae.weights.W_dec.double().norm(dim=1).cpu().numpy())

    @property
    def bank(self) -> ConceptBank:
        """What can be said about every validation token."""
        at, concepts = self.study, self.study.settings.concepts
        return _bank(at.corpus, at.activations, concepts, at.seed, at.shared)

    def write(self, frame: "pd.DataFrame", name: str) -> None:
        """`name`.parquet in the cell's folder."""
        frame.to_parquet(self.folder / f"{name}.parquet", index=False, compression="zstd")


@lru_cache(maxsize=1)
def _bank(
    corpus: Path, activations: Path, concepts: ConceptLabels | None, seed: int, contents: str
) -> ConceptBank:
    """The bank that a process's cells share; `contents`, a hash of all it is made of, tells it."""
    index = ActivationStore(activations).index("validation").whole()
    return load_bank(corpus, index, seed, None if concepts is None else Path(concepts.path))


@lru_cache(maxsize=2)
def _dense_probes(contents: str, hook: str) -> "dict[int, DenseProbe]":
    """What the activations alone say of concepts: fitted by the first cell of a process."""
    return {}


def measured(found: FirstPass) -> Summary:
    """All that the study asks for, together; what makes no sense for a cell is left out.

    Rows that are whole documents carry neither concepts nor words.
    """
    by_token = found.store.manifest["pooling"] == "token"
    total = Summary({}, {}, {})
    for name in found.study.settings.metrics:
        measure, needs_tokens = MEASURES[name]
        if needs_tokens and not by_token:
            continue
        part = measure(found)
        total = Summary(
            total.metrics | part.metrics,
            total.counts | part.counts,
            total.intervals | part.intervals,
        )
    return total


def _monosemanticity(found: FirstPass) -> Summary:
    """monosemantic.parquet: a row per latent."""
    bank, seed = found.bank, found.study.seed
    frame = monosemanticity(found.canonical, bank, seed, found.totals.fired_k)
    found.write(frame, "monosemantic")
    return summary(frame, bank, seed)


def _dictionary(found: FirstPass) -> Summary:
    """dictionary.parquet: each latent's nearest atom and the bits that it costs."""
    from sae_repro.evaluate.structure.description import description_length
    from sae_repro.evaluate.structure.neighbours import decoder_max_cosine

    totals, seed = found.totals, found.study.seed
    variance = float(totals.document_variance.sum()) / totals.tokens
    near, nearness = decoder_max_cosine(found.sae.weights.W_dec, totals.fired_k, seed)
    bits, length = description_length(
        found.canonical, variance, totals.fired_k, totals.tokens, seed
    )
    found.write(near.merge(bits, on="latent"), "dictionary")
    return Summary(
        nearness.metrics | length.metrics,
        nearness.counts | length.counts,
        nearness.intervals | length.intervals,
    )


def _structure(found: FirstPass) -> Summary:
    """concepts.parquet and pairs.parquet: how latents divide concepts, parents and children."""
    from sae_repro.evaluate.structure.concepts import concept_structure
    from sae_repro.evaluate.structure.sample import collect

    study = found.study
    sample = collect(
        found.canonical,
        found.batches(),
        found.bank,
        found.mean_d,
        found.sae.weights.W_dec.cpu().numpy(),
        study.seed,
        study.settings.structure_tokens,
    )
    probes = _dense_probes(study.shared, found.hook)
    frames, told = concept_structure(sample, study.seed, probes)
    found.write(frames.concepts, "concepts")
    found.write(frames.pairs, "pairs")
    return told


def _references(found: FirstPass) -> Summary:
    """references.parquet: the best match of each latent of small SAEs; correlation_map.parquet."""
    import pandas as pd

    from sae_repro.evaluate.structure.correlation import correlations, sampled_rows
    from sae_repro.evaluate.structure.references import references

    study = found.study
    rows = sampled_rows(found.batches, found.totals.tokens, study.seed)
    small = references(study.family(), found.hook, study.settings.references)
    frame, mapped, told = correlations(found.codes, small, rows, found.totals.fired_k, study.seed)
    found.write(frame, "references")
    columns = {str(latent): mapped.correlation[:, i] for i, latent in enumerate(mapped.latent)}
    found.write(pd.DataFrame({"latent": mapped.latent, **columns}), "correlation_map")
    return told


def _ngram(found: FirstPass) -> Summary:
    """ngram.parquet: the word patterns of a sample of latents."""
    from sae_repro.evaluate.structure.ngram import explainability_ngram
    from sae_repro.evaluate.structure.passages import last_activation

    study = found.study
    hook, device = model_hook(found.hook), study.settings.device
    activate = last_activation(_subject(found), found.sae, hook, device)
    frame, told = explainability_ngram(
        activate, found.canonical, _passages(found), found.totals.fired_k, study.seed
    )
    found.write(frame, "ngram")
    return told


def _ablation(found: FirstPass) -> Summary:
    """ablation.parquet: how many logits single latents move."""
    from sae_repro.evaluate.structure.ablation import ablation_sparsity

    hook, seed = model_hook(found.hook), found.study.seed
    frame, told = ablation_sparsity(
        _subject(found), found.sae, hook, found.codes, _passages(found), seed
    )
    found.write(frame, "ablation")
    return told


def _subject(found: FirstPass) -> Any:
    """The model that the hook is read from: the one with random weights too."""
    from sae_repro.subject.loader import load_for

    study = found.study
    return load_for(found.hook, study.subject, found.store.manifest, device=study.settings.device)


def _passages(found: FirstPass) -> "Passages":
    from sae_repro.evaluate.structure.passages import Passages

    return Passages.load(found.store)


MEASURES: dict[str, tuple[Callable[[FirstPass], Summary], bool]] = {
    "monosemanticity": (_monosemanticity, True),
    "structure": (_structure, True),
    "dictionary": (_dictionary, False),
    "references": (_references, True),
    "ngram": (_ngram, True),
    "ablation": (_ablation, True),
}
"""Metric: its function, and whether it needs rows that are tokens."""
