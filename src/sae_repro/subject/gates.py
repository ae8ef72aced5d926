"""Gates: tests that a language model has learnt the stories' rules, not only local statistics.

A sparse autoencoder cannot find what the model under it does not encode, so a subject that misses
a gate is refused, however low its loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sae_repro.stories import lexicon

THRESHOLDS = {"pronoun_agreement": 0.95, "name_reuse": 0.8, "quote_closing": 0.99}


@dataclass(frozen=True)
class Gates:
    """Fractions in [0, 1], NaN where nothing was there to measure, and the number of targets each.

    `n_quote` counts both sides of `quote_closing`.
    """

    pronoun_agreement: float
    name_reuse: float
    quote_closing: float
    n_pronoun: int
    n_name: int
    n_quote: int

    def failed(self) -> list[str]:
        """Names of the gates below their threshold. A gate without targets is not passed."""
        return [name for name, least in THRESHOLDS.items() if not getattr(self, name) >= least]


def measure(
    logits: Callable[[torch.Tensor], torch.Tensor],
    documents: Sequence[np.ndarray],
    *,
    token_offset: int,
    bos: int,
    batch_size: int = 256,
) -> Gates:
    """Measure the gates on story documents.

    `logits` maps tokens int64 [B, L] to logits [B, L, V]. A row is `bos` and a document, padded on
    the right with `bos`; `documents` hold positions in the story vocabulary, and the model's ids
    are those plus `token_offset`. Every document's token is a target, the first one included.

    - `pronoun_agreement`: of the targets that are a gendered pronoun (in the stories, each refers
      to a person already introduced), the fraction where it gets a strictly higher logit than the
      other gender's pronoun of the same case. "her" has two cases and must beat "him" and "his".
    - `name_reuse`: of the targets that are a name already in the document, the fraction where that
      name gets the highest logit of all names, the story's other names included. Top-1 among names
      rather than among all words, since a pronoun often could stand there as well; it still fails
      a model that copies any name it has seen instead of the right one.
    - `quote_closing`: at the targets right after `.`, `!` or `?`, does the model predict (top-1 of
      everything) a quote mark if and only if a quote is open? The smaller of two fractions: inside
      quotes, where the mark always closes, and outside, without the targets where a new quote
      opens, which is unpredictable. A model that ignores whether a quote is open answers
      both sides alike, so the smaller fraction stays at or below one half if the two look the same.

    Raises ValueError for an empty document, logits of a wrong shape, or logits not finite.
    """
    counts = np.zeros((4, 2), dtype=np.int64)  # pronoun, name, inside, outside x right, all
    for first in range(0, len(documents), batch_size):
        batch = [np.asarray(row, dtype=np.int64) for row in documents[first : first + batch_size]]
        if not all(len(row) for row in batch):
            raise ValueError("a document is empty")
        length = max(len(row) for row in batch)
        words = np.full((len(batch), length), -1)
        for filled, row in zip(words, batch, strict=True):
            filled[: len(row)] = row
        padded = np.where(words >= 0, words + token_offset, bos)
        tokens = np.column_stack([np.full(len(batch), bos), padded])
        with torch.no_grad():
            scores = logits(torch.from_numpy(tokens))
        if scores.shape[:2] != tokens.shape:
            raise ValueError(f"logits of {tokens.shape} tokens have shape {tuple(scores.shape)}")
        # The row before a target predicts it; the last row has none.
        predictions = scores[:, :-1].float().cpu().numpy()
        if not np.isfinite(predictions[words >= 0]).all():
            raise ValueError("logits are not finite")
        counts += _count(predictions, words, token_offset)

    fractions = [right / total if total else float("nan") for right, total in counts.tolist()]
    totals = counts[:, 1].tolist()
    return Gates(
        pronoun_agreement=fractions[0],
        name_reuse=fractions[1],
        quote_closing=float(np.minimum(fractions[2], fractions[3])),
        n_pronoun=totals[0],
        n_name=totals[1],
        n_quote=totals[2] + totals[3],
    )


def _count(predictions: np.ndarray, words: np.ndarray, offset: int) -> np.ndarray:
    """Right answers and targets, [4, 2]; `words` [B, L] is -1 on padding."""
    ids = {word: position for position, word in enumerate(lexicon.vocabulary())}
    return np.array(
        [
            _pronouns(predictions, words, offset, ids),
            _names(predictions, words, offset, ids),
            *_quotes(predictions, words, offset, ids),
        ]
    )


def _pronouns(
    predictions: np.ndarray, words: np.ndarray, offset: int, ids: dict[str, int]
) -> tuple[int, int]:
    right = total = 0
    for pronoun, opposites in lexicon.OPPOSITES.items():
        scores = predictions[words == ids[pronoun]]
        rival = scores[:, [ids[word] + offset for word in opposites]].max(axis=1)
        right += int((scores[:, ids[pronoun] + offset] > rival).sum())
        total += len(scores)
    return right, total


def _names(
    predictions: np.ndarray, words: np.ndarray, offset: int, ids: dict[str, int]
) -> tuple[int, int]:
    names = np.array([ids[w] for name in lexicon.NAME_LISTS for w in lexicon.LISTS[name].words])
    repeats = np.tril(words[:, :, None] == words[:, None, :], k=-1).any(axis=2)
    targets = np.isin(words, names) & repeats
    best = names[predictions[targets][:, names + offset].argmax(axis=1)]
    return int((best == words[targets]).sum()), int(targets.sum())


def _quotes(
    predictions: np.ndarray, words: np.ndarray, offset: int, ids: dict[str, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    quote = ids[lexicon.QUOTE]
    after_end = np.isin(words[:, :-1], [ids[mark] for mark in lexicon.SENTENCE_ENDS])
    is_open = np.cumsum(words[:, :-1] == quote, axis=1) % 2 == 1
    target, predicted = words[:, 1:], predictions[:, 1:].argmax(axis=2) == quote + offset
    inside = after_end & is_open & (target >= 0)
    outside = after_end & ~is_open & (target >= 0) & (target != quote)
    return (
        (int(predicted[inside].sum()), int(inside.sum())),
        (int((~predicted[outside]).sum()), int(outside.sum())),
    )
