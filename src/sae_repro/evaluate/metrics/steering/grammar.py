"""The grammar's labels of written text: the words that are of a class in every use they have."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_repro.stories import lexicon

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONCEPTS = ("name", "animal", "food", "verb")
"""Parents of the grammar's classes: each has tens of words."""

Mask = npt.NDArray[np.bool_]


def words_of(concept: str, tokenizer: "PreTrainedTokenizerFast", vocabulary: int) -> Mask:
    """The tokens [V] that are of class `concept` in each of their uses.

    So that a label is exact whatever stands around the word; a homograph, such as "bat", is of no
    class.
    """
    mask = np.zeros(vocabulary, dtype=bool)
    mask[[tokenizer.convert_tokens_to_ids(word) for word in _words(concept)]] = True
    return mask


@lru_cache
def _words(concept: str) -> tuple[str, ...]:
    parents = lexicon.concept_parents()
    uses: dict[str, list[bool]] = {}
    for sense in lexicon.senses():
        own = set(lexicon.sense_concepts(*sense))
        uses.setdefault(sense[1], []).append(concept in own | {parents[each] for each in own})
    return tuple(word for word, of_class in uses.items() if all(of_class))
