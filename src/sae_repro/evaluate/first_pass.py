"""One SAE after its first pass over the validation activations, as every metric reads it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.autoencoders import SAE
from sae_repro.concepts.bank import ConceptBank, load_bank
from sae_repro.evaluate.codes import Codes, scaled
from sae_repro.evaluate.held_out import Batch
from sae_repro.evaluate.reconstruction import Totals
from sae_repro.params import ConceptLabels
from sae_repro.readers.activations import ActivationStore

if TYPE_CHECKING:
    import pandas as pd

    from sae_repro.evaluate.job import Evaluation


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

    @cached_property
    def canonical(self) -> Codes:
        """The codes as a = z·‖d_k‖."""
        return scaled(self.codes, self.sae.weights.W_dec.double().norm(dim=1).cpu().numpy())

    @property
    def bank(self) -> ConceptBank:
        """The concepts of every validation token."""
        study, concepts = self.study, self.study.settings.concepts
        return _bank(study.corpus, study.activations, concepts, study.seed, study.shared)

    def subject(self) -> Any:
        """The model that the hook is read from: the one with random weights too."""
        from sae_repro.readers.subject import load_for

        study = self.study
        device = study.settings.device
        return load_for(self.hook, study.subject, self.store.manifest, device=device)

    def write(self, frame: "pd.DataFrame", name: str) -> None:
        """`name`.parquet in the cell's folder."""
        frame.to_parquet(self.folder / f"{name}.parquet", index=False, compression="zstd")


@lru_cache(maxsize=1)
def _bank(
    corpus: Path, activations: Path, concepts: ConceptLabels | None, seed: int, contents: str
) -> ConceptBank:
    """The bank that a process's cells share; `contents` is a hash of all that it is made of."""
    index = ActivationStore(activations).index("validation").whole()
    return load_bank(corpus, index, seed, None if concepts is None else Path(concepts.path))
