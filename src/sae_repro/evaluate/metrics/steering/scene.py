"""The language model on held-out stories, and beginnings of others that it continues."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.evaluate.first_pass import FirstPass, corpus_of
from sae_repro.evaluate.metrics.steering.writing import (
    TOGETHER,
    Read,
    guided,
    reading,
    with_words,
    written,
)
from sae_repro.evaluate.resumed import Resumable
from sae_repro.numerics.hashing import fingerprint, least_hash, uniform_hash
from sae_repro.params import model_hook
from sae_repro.readers.row_start import row_start
from sae_repro.steering import behind_first, divergence, edited
from sae_repro.steering.interventions import Edit

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Ints = npt.NDArray[np.int64]

STORIES = 12
"""On which KL is measured."""
PROMPTS, GIVEN, WRITTEN = TOGETHER, 12, 12
"""Other stories, whose first tokens are given, and the tokens that are written."""
WORDS = 8
"""Of the concept, in the prompt that competes with steering."""
LEAST_CONTEXT = 1 + GIVEN + WRITTEN - 1 + WORDS
LEAST_DOCUMENTS = 10


def not_enough(first_pass: FirstPass) -> str | None:
    """Why there is too little to write on; None where there is enough."""
    documents, context = len(_test_documents(first_pass)), first_pass.store.manifest["context"]
    if documents < LEAST_DOCUMENTS:
        return f"{documents} held-out stories in the test half; at least {LEAST_DOCUMENTS}"
    if context < LEAST_CONTEXT:
        return f"extract.context: {context} positions; at least {LEAST_CONTEXT}"
    return None


@dataclass(frozen=True)
class Scene:
    """What steering is measured on, drawn anew for each SAE: the seeds of a cell are independent.

    All of it is of the test half of the held-out documents: latents are chosen on the other.
    """

    subject: "TransformerBridge"
    hook: str
    norm_limit: float | None
    name: int
    """A number for the SAE, by its atoms: names its draws."""
    stories: Tensor
    real: Tensor
    """[S, L − 1]: predictions that count, those of padding apart."""
    prompts: Tensor
    """[N, 1 + GIVEN]."""
    uniform_nt: npt.NDArray[np.float64]
    ends: Ints
    """Token ids with which a text ends."""

    @classmethod
    def of(cls, first_pass: FirstPass) -> "Scene":
        """The scene of one SAE; the caller has seen that there is enough (`not_enough`)."""
        study, manifest = first_pass.study, first_pass.store.manifest
        subject, corpus, name = first_pass.subject(), corpus_of(study), number_of(first_pass.sae)
        tokenizer = corpus.tokenizer()
        start = row_start(tokenizer, manifest["prepend_bos"])
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
        first = start if start is not None else int(max(special, default=0))
        drawn = least_hash(
            _test_documents(first_pass), STORIES + PROMPTS, study.seed, f"steering/{name}"
        )
        of_kl = drawn[: min(STORIES, len(drawn) // 2)]
        begun = drawn[len(of_kl) :]
        device = next(subject.parameters()).device
        rows = [[first, *corpus.document(d)[: manifest["context"] - 1 - WORDS]] for d in of_kl]
        longest = max(map(len, rows))
        step = np.arange(WRITTEN)
        uniform = uniform_hash(
            study.seed, f"steering/{name}/draws", begun.repeat(WRITTEN), np.tile(step, len(begun))
        )
        return cls(
            subject=subject,
            hook=model_hook(first_pass.hook),
            norm_limit=first_pass.store.norm_limit(first_pass.hook),
            name=name,
            stories=torch.tensor(
                [[*row, *[first] * (longest - len(row))] for row in rows], device=device
            ),
            real=torch.tensor(
                [[t < len(row) for t in range(1, longest)] for row in rows], device=device
            ),
            prompts=torch.tensor(
                [[first, *corpus.document(d)[:GIVEN]] for d in begun], device=device
            ),
            uniform_nt=uniform.reshape(len(begun), WRITTEN),
            ends=np.array(sorted(int(i) for i in special), dtype=np.int64),
        )

    def kl(self, edit: Edit) -> float:
        """KL(unsteered ‖ steered) in nats, the mean over the positions of the stories."""
        with torch.no_grad():
            logits = self._untouched.replaced(behind_first(edit, self.norm_limit))
        return self._kl(self._log_p(logits))

    def written(self, edit: Edit) -> Ints:
        """The tokens [N, WRITTEN] that the steered model writes behind each beginning."""
        with edited(self.subject, self.hook, edit, norm_limit=self.norm_limit, cached=True):
            return self.unsteered()

    def unsteered(self) -> Ints:
        """Those of the model left alone."""
        return written(lambda: reading(self.subject), self.prompts, self.uniform_nt)

    def kl_guided(self, words: Sequence[int], weight: float) -> float:
        """As `kl`, of the model guided by `words` with a weight (see `guided`)."""
        key = tuple(words)
        if key not in self._prompted:
            with torch.no_grad():
                plain = self._untouched.untouched()
                behind: Any = self.subject(with_words(self.stories, words))
            behind = behind[:, len(words) :]
            self._prompted[key] = plain[:, 1:][self.real], behind[:, 1:][self.real]
        plain, behind = self._prompted[key]
        return self._kl((plain + weight * (behind - plain)).log_softmax(dim=-1))

    def written_guided(self, words: Sequence[int], weight: float) -> Ints:
        """As `written`."""

        def start() -> Read:
            return guided(reading(self.subject), reading(self.subject), words, weight)

        return written(start, self.prompts, self.uniform_nt)

    def _kl(self, log_p: Tensor) -> float:
        return float(divergence(self._clean, log_p).mean(dtype=torch.float64))

    def _log_p(self, logits: Tensor) -> Tensor:
        """Log-probabilities [m, V] behind all real positions but a row's first."""
        return logits[:, 1:][self.real].log_softmax(dim=-1)

    @cached_property
    def _untouched(self) -> Resumable:
        with torch.no_grad():
            return Resumable.of(self.subject, self.stories, self.hook)

    @cached_property
    def _clean(self) -> Tensor:
        with torch.no_grad():
            return self._log_p(self._untouched.untouched())

    @cached_property
    def _prompted(self) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        return {}


def number_of(sae: SAE) -> int:
    """A number for an SAE, by its atoms: the same in every cell that has it."""
    atoms = sae.weights.W_dec.detach().cpu().contiguous().numpy()
    return int.from_bytes(fingerprint(atoms.tobytes(), 0)[:6], "little")


def _test_documents(first_pass: FirstPass) -> Ints:
    """The validation documents of the test half that activations were read from, long enough."""
    bank, corpus = first_pass.bank, corpus_of(first_pass.study)
    documents = np.unique(bank.document[~bank.fit])
    length = corpus.documents["length"].to_numpy(np.int64)[documents]
    long_enough: Ints = documents[length > GIVEN]
    return long_enough
