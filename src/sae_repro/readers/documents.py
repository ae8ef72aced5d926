"""Reader of artifacts/corpus: token documents, their split, their tokenizer."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from sae_repro.errors import StudyError
from sae_repro.files import read_object

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerFast

LABEL = "label"
"""The column of documents' classes; where there are several, each is `label:` and its name."""
FINGERPRINTS = "fingerprints.npy"
"""Of given activations, a number for the content of each document, uint64: copies share it."""


def label_column(name: str, *, of: int) -> str:
    """The column that holds the classes `name`, one of `of` kinds."""
    return LABEL if of == 1 else f"{LABEL}:{name}"


@dataclass(frozen=True)
class TokenDocuments:
    """Documents of token ids. Nothing special is in them: rows get their BOS in `windows`."""

    folder: Path
    tokens: npt.NDArray[np.int32]
    """All documents one after another, [T], memory-mapped."""
    documents: "pd.DataFrame"
    """Per document: document, start, length, split, label, and its row in the source, from 0.

    Where a source has several kinds of classes, a column for each: see `labels`.
    """

    @classmethod
    def load(cls, folder: Path) -> "TokenDocuments":
        """The corpus in `folder`; StudyError where it is missing."""
        import pandas as pd

        if not (folder / "tokens.npy").is_file():
            raise StudyError(f"{folder}: no corpus there; `dvc repro corpus` makes it")
        tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
        # a plain view: slicing numpy's own class of mapped arrays costs eight times as much
        return cls(folder, tokens.view(np.ndarray), pd.read_parquet(folder / "documents.parquet"))

    @cached_property
    def _bounds(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        start = self.documents["start"].to_numpy()
        return start, start + self.documents["length"].to_numpy()

    def document(self, number: int) -> npt.NDArray[np.int32]:
        """Token ids of document `number`."""
        start, end = self._bounds
        return self.tokens[start[number] : end[number]]

    def bounds(
        self, numbers: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Begin and end of each of the documents `numbers` in `tokens`."""
        start, end = self._bounds
        return start[numbers], end[numbers]

    def pieces(self, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> list[list[int]]:
        """The token ids from each `begin` to its `end`, places in `tokens`."""
        length = end - begin
        stop = np.cumsum(length)
        start = stop - length
        # all at once: a slice of a mapped file costs more than the few ids in it
        ids = self.tokens[np.repeat(begin - start, length) + np.arange(length.sum())].tolist()
        return [ids[a:b] for a, b in zip(start.tolist(), stop.tolist(), strict=True)]

    def split(self, name: str) -> npt.NDArray[np.int64]:
        """Numbers of the documents in `name` (train, calibration, tuning, validation), in order."""
        return np.flatnonzero((self.documents["split"] == name).to_numpy())

    @property
    def given(self) -> bool:
        """Whether activations were given: texts are what a table shows of rows, and no tokens."""
        return (self.folder / FINGERPRINTS).is_file()

    @property
    def labels(self) -> "dict[str, pd.Series]":
        """The classes of documents by their kind, "" where there is but one; missing: it has none.

        Kinds of which no document has a class are left out.
        """
        columns = {
            name.removeprefix(LABEL).removeprefix(":"): self.documents[name]
            for name in self.documents.columns
            if name.partition(":")[0] == LABEL
        }
        return {kind: labels for kind, labels in columns.items() if labels.notna().any()}

    @property
    def name(self) -> str:
        """Name of the text: the hub's name, the files', or `stories`."""
        return str(read_object(self.folder / "corpus.json")["name"])

    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The tokenizer that made the ids."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerFast":
        from transformers import AutoTokenizer

        return cast(
            "PreTrainedTokenizerFast",
            AutoTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True),
        )
