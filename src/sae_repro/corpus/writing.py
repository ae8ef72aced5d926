"""The corpus on disk: tokenised once, in batches, one row of a table per document in memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.corpus.found import Found
from sae_repro.corpus.sources import SOURCES, Document, TextSource
from sae_repro.corpus.split import check_splits, split_of, splits_of
from sae_repro.files import write_json
from sae_repro.numerics.hashing import fingerprint
from sae_repro.params import (
    Corpus,
    PretrainedSubject,
    StoriesSource,
    TrainedSubject,
)
from sae_repro.progress import bar
from sae_repro.readers.shards import RowFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 1024  # documents tokenised together


class Writer:
    """Appends documents; `close` writes their table and the summary."""

    def __init__(
        self, folder: Path, corpus: Corpus, seed: int, labels: Sequence[str] = ("label",)
    ) -> None:
        self._folder, self._corpus, self._seed = folder, corpus, seed
        self._tokens = RowFile(folder / "tokens.npy", 1, np.int32)
        self._rows: list[int] = []
        self._lengths: list[int] = []
        self._splits: list[str] = []
        self._labels: dict[str, list[str | None]] = {name: [] for name in labels}
        self._seen: set[bytes] = set()
        self.duplicates = 0

    def append(self, row: int, ids: npt.NDArray[Any], content: bytes, *labels: str | None) -> None:
        """One document, which `row` of the source holds; `content` decides its split.

        `labels` are its classes, one for each of the writer's; without any it has none.
        """
        mark = fingerprint(content, self._seed)
        self.duplicates += mark in self._seen
        self._seen.add(mark)
        self._tokens.append(ids.reshape(-1, 1))
        self._rows.append(row)
        self._lengths.append(len(ids))
        self._splits.append(split_of(mark, self._corpus))
        for of_all, label in zip(self._labels.values(), labels or (None,), strict=True):
            of_all.append(label)

    def close(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        name: str,
        skipped: Counter[str],
        *,
        paragraphs: bool = False,
    ) -> None:
        """Complete the folder; StudyError where a split is empty."""
        import pandas as pd

        self._tokens.close(flat=True)
        lengths = np.array(self._lengths, dtype=np.int32)
        frame = pd.DataFrame(
            {
                "document": np.arange(len(lengths), dtype=np.int64),
                "start": np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[:-1].astype(
                    np.int64
                ),
                "length": lengths,
                "split": pd.array(self._splits, dtype="str"),
                **{name: pd.array(of, dtype="str") for name, of in self._labels.items()},
                "row": np.array(self._rows, dtype=np.int64),
            }
        )
        found = Found(len(lengths), skipped, self.duplicates, paragraphs)
        check_splits(set(self._splits), found, self._corpus)
        frame.to_parquet(self._folder / "documents.parquet", index=False, compression="zstd")
        tokenizer.save_pretrained(self._folder / "tokenizer")
        by_split = frame.groupby("split")["length"]
        splits = splits_of(self._corpus)
        write_json(
            self._folder / "corpus.json",
            {
                "name": name,
                "source": self._corpus.source.model_dump(mode="json"),
                "documents": {s: int(by_split.count()[s]) for s in splits},
                "tokens": {s: int(by_split.sum()[s]) for s in splits},
                "skipped": {reason: skipped[reason] for reason in ("empty", "one_token")},
                "duplicates": self.duplicates,
                "vocabulary": len(tokenizer),
            },
        )


def write_stories(corpus: Corpus, source: StoriesSource, seed: int, folder: Path) -> None:
    """Write the stories of the embedded study, with their labels and concepts."""
    from sae_repro.corpus.tokenizers import SPECIAL, word_level
    from sae_repro.stories import generator

    writer = Writer(folder, corpus, seed)
    width = -(-len(generator.concepts()) // 8)
    labels = RowFile(folder / "labels.npy", width, np.uint8)
    with bar("corpus", unit="doc", total=source.n_documents) as progress:
        for first in range(0, source.n_documents, 8 * BATCH):
            n = min(8 * BATCH, source.n_documents - first)
            stories = generator.generate(n, seed, first)
            ids = stories.tokens.astype(np.int32) + len(SPECIAL)
            bounds = zip(stories.starts[:-1], stories.starts[1:], strict=True)
            for row, (start, end) in enumerate(bounds, first):
                document = ids[start:end]
                writer.append(row, document, document.tobytes())
            labels.append(stories.labels)
            progress.update(n)
    labels.close()
    write_json(
        folder / "concepts.json",
        [{"name": c.name, "parent": c.parent, "kind": c.kind} for c in generator.concepts()],
    )
    writer.close(word_level(generator.vocabulary()), "stories", Counter())


def write_texts(
    corpus: Corpus,
    subject: TrainedSubject | PretrainedSubject,
    seed: int,
    folder: Path,
    *,
    study: Path,
) -> None:
    """Tokenise the documents of a source; `study` holds params.yaml."""
    from sae_repro.corpus.tokenizers import byte_pairs
    from sae_repro.readers.tokenizer import pretrained

    texts = SOURCES[corpus.source.kind](corpus.source, study)
    if isinstance(subject, TrainedSubject):
        tokenizer = byte_pairs(_training_texts(texts, corpus, seed), corpus.vocabulary)
    else:
        tokenizer = pretrained(subject, study)
    writer = Writer(folder, corpus, seed)
    one_token = 0
    for batch in _batched(texts):
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(
            [document.text for document in batch], add_special_tokens=False
        )
        for document, encoding in zip(batch, encoded, strict=True):
            ids = np.array(encoding.ids, dtype=np.int32)
            if len(ids) < 2:  # no token to predict
                one_token += 1
                continue
            writer.append(document.row, ids, document.text.encode(), document.label)
    texts.skipped["one_token"] = one_token
    writer.close(tokenizer, texts.name, texts.skipped, paragraphs=texts.paragraphs)


def _training_texts(texts: TextSource, corpus: Corpus, seed: int) -> Iterator[str]:
    """Texts of the training split: the tokenizer has not seen held-out documents either."""
    with bar("tokenizer", unit="doc") as progress:
        for document in texts:
            if split_of(fingerprint(document.text.encode(), seed), corpus) == "train":
                yield document.text
            progress.update()


def _batched(texts: TextSource) -> Iterator[list[Document]]:
    stream = iter(texts)
    with bar("corpus", unit="doc") as progress:
        while batch := list(islice(stream, BATCH)):
            yield batch
            progress.update(len(batch))
