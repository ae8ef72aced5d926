"""The beginning of a study's text, tokenised and split as the stage `corpus` does it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.contents import check
from sae_repro.corpus.sources import SOURCES
from sae_repro.corpus.split import split_of, splits_of
from sae_repro.corpus.writing import write_texts
from sae_repro.numerics.hashing import fingerprint
from sae_repro.params import (
    ActivationsSource,
    Corpus,
    NoSubject,
    StoriesSource,
    Study,
    TrainedSubject,
)
from sae_repro.readers.documents import TokenDocuments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHARACTERS_PER_TOKEN = 6  # more than most texts have, so that the tokens suffice
SHORT = 20  # characters; a document of one token is left out, and fills no split


def sample(study: Study, folder: Path, tokens: int, to: Path) -> TokenDocuments:
    """About `tokens` training tokens of the study's text, and of every other split a document.

    Of a subject that is trained here, all of artifacts/corpus, whose tokenizer it has. `folder`
    holds params.yaml; the sample is written to `to`.
    """
    source, corpus = study.subject.source, study.corpus
    if isinstance(source, TrainedSubject):
        made = folder / "artifacts" / "corpus"
        check(made)
        return TokenDocuments.load(made)
    # the schema gives stories a trained subject, and activations none, whose study has no probe
    assert not isinstance(corpus.source, StoriesSource | ActivationsSource)
    assert not isinstance(source, NoSubject)
    documents = _documents(corpus, study.seed, folder, tokens * CHARACTERS_PER_TOKEN)
    part = corpus.source.model_copy(update={"n_documents": documents})
    write_texts(corpus.model_copy(update={"source": part}), source, study.seed, to, study=folder)
    return TokenDocuments.load(to)


def _documents(corpus: Corpus, seed: int, folder: Path, characters: int) -> int:
    """How many documents hold so many characters for training and one document of each split."""
    missing = set(splits_of(corpus))
    count = 0
    for document in SOURCES[corpus.source.kind](corpus.source, folder):
        split = split_of(fingerprint(document.text.encode(), seed), corpus)
        count += 1
        if len(document.text) > SHORT:
            missing.discard(split)
        characters -= len(document.text) if split == "train" else 0
        if characters <= 0 and not missing:
            break
    return count


def documents_of(texts: Sequence[str], tokenizer: "PreTrainedTokenizerFast") -> TokenDocuments:
    """`texts` as training documents, in memory; without a tokenizer of their own."""
    import numpy as np
    import pandas as pd

    encoded = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [encoding.ids for encoding in encoded if len(encoding.ids) > 1]
    length = np.array([len(tokens) for tokens in ids], dtype=np.int64)
    tokens_m = np.array([token for tokens in ids for token in tokens], dtype=np.int32)
    frame = pd.DataFrame({"start": length.cumsum() - length, "length": length, "split": "train"})
    return TokenDocuments(Path(), tokens_m, frame)
