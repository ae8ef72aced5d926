"""One SAE after its first pass over the validation activations, as every metric reads it."""

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.autoencoders import SAE
from sae_repro.concepts.bank import ConceptBank, load_bank
from sae_repro.evaluate.codes import Codes, scaled
from sae_repro.evaluate.held_out import Batch
from sae_repro.evaluate.reconstruction import Totals
from sae_repro.params import weights_of
from sae_repro.pins import pinned_concepts
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

    from sae_repro.evaluate.inputs import Evaluation
    from sae_repro.evaluate.passages import Passages


@dataclass(frozen=True)
class FirstPass:
    """One SAE after its first pass over the validation activations."""

    study: "Evaluation"
    sae: SAE
    store: ActivationStore
    hook: str
    batches: Callable[[], Iterable[Batch]]
    codes: Codes
    totals: Totals
    folder: Path
    target: str | None = None
    """The target hook of a transcoder."""

    @cached_property
    def canonical(self) -> Codes:
        """The codes as a = z·‖d_k‖."""
        return scaled(self.codes, self.sae.weights.W_dec.double().norm(dim=1).cpu().numpy())

    @property
    def classes(self) -> bool:
        """Whether activations were given, of documents with classes."""
        return corpus_of(self.study).given and bool(corpus_of(self.study).labels)

    @property
    def bank(self) -> ConceptBank:
        """The concepts of every validation token."""
        return bank_of(self.study)

    @property
    def passages(self) -> "Passages":
        """The rows of the language model that the validation tokens stand in."""
        return _passages(self.study)

    def subject(self) -> "TransformerBridge":
        """The model that the hook is read from: the one with random weights too."""
        return subject_of(self.study, self.hook)

    @property
    def decodes_at(self) -> str:
        """The hook at which rows of W_dec are directions."""
        return self.target or self.hook

    def write(self, frame: "pd.DataFrame", name: str) -> None:
        """`name`.parquet in the cell's folder."""
        frame.to_parquet(self.folder / f"{name}.parquet", index=False, compression="zstd")


# One study and hook at a time: a process evaluates the cells of a study one after another, and
# what they share is large. An `Evaluation` has a hash of all its inputs' contents.


@lru_cache(maxsize=1)
def bank_of(study: "Evaluation") -> ConceptBank:
    """The concept bank that a process's cells share."""
    index, concepts = (
        ActivationStore(study.activations).index("validation"),
        study.settings.concepts,
    )
    spans = None if concepts is None else pinned_concepts(concepts, Path())
    return load_bank(study.corpus, index.whole(), study.seed, spans, surface=study.settings.surface)


@lru_cache(maxsize=1)
def _passages(study: "Evaluation") -> "Passages":
    from sae_repro.evaluate.passages import Passages

    return Passages.load(ActivationStore(study.activations))


def subject_of(study: "Evaluation", hook: str) -> "TransformerBridge":
    """The model that `hook` is read from, which a process's cells share."""
    return _subject(study, weights_of(hook))


@lru_cache(maxsize=1)
def _subject(study: "Evaluation", prefix: str) -> "TransformerBridge":
    from sae_repro.readers.subject import load_for

    manifest = ActivationStore(study.activations).manifest
    subject = load_for(prefix, study.subject, manifest, device=study.settings.device)
    # all that is there by now stays: looking through it for garbage, again and again, takes longer
    # than some metrics
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    return subject


@lru_cache(maxsize=1)
def corpus_of(study: "Evaluation") -> TokenDocuments:
    """The documents, and their tokenizer, that a process's cells share."""
    return TokenDocuments.load(study.corpus)
