"""A split that is being extracted: its sink, its windows, how far it is."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sae_repro.extract.pool import DocumentMeans, Tokens
from sae_repro.extract.rolling import RoundsSink, new_rounds
from sae_repro.extract.sinks import OrderedSink, ShuffledSink, Sink
from sae_repro.extract.state import State
from sae_repro.numerics.random import generator
from sae_repro.params import Extract
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import RowFile
from sae_repro.readers.windows import Windows


class WindowRecord:
    """The language model's input rows, for evaluations that run it again."""

    def __init__(self, folder: Path, settings: Extract, state: State | None = None) -> None:
        rows = None if state is None else state["rows"]
        self._files = {
            "tokens": RowFile(folder / "tokens.npy", settings.context, np.int32, rows),
            "mask": RowFile(folder / "mask.npy", settings.context, np.bool_, rows),
            "document": RowFile(folder / "document.npy", 1, np.int32, rows),
            "length": RowFile(folder / "length.npy", 1, np.int32, rows),
        }

    def append(self, batch: Windows) -> None:
        """Append a batch of rows."""
        self._files["tokens"].append(batch.tokens)
        self._files["mask"].append(batch.mask)
        self._files["document"].append(batch.document[:, None])
        self._files["length"].append(batch.length[:, None])

    def close(self) -> None:
        """Complete the files."""
        for file in self._files.values():
            file.close(sync=True)

    def state(self) -> State:
        """How many rows there are; they are in the files by then."""
        for file in self._files.values():
            file.park()
        return {"rows": self._files["tokens"].rows}


class Split:
    """The split `name`, of at most `limit` tokens, into `folder`; from `state` on, if there is one.

    `done`, `read`: passes made, whether none is left. `documents`: those that rows came from so
    far, the last of them `last`.
    """

    def __init__(
        self,
        name: str,
        settings: Extract,
        corpus: TokenDocuments,
        *,
        d_in: Mapping[str, int],
        limit: int,
        seed: int,
        folder: Path,
        state: State | None = None,
    ) -> None:
        self.name = name
        of: State = state or {"sink": None, "record": None, "pool": None, "done": 0,
                              "read": False, "documents": 0, "last": -1}  # fmt: skip
        hooks = settings.all_hooks
        self.sink: Sink
        if name != "train":
            self.sink = OrderedSink(
                folder, name, hooks, d_in, settings.dtype, settings.shard_rows, of["sink"]
            )
        elif settings.buffer is not None:
            rounds = new_rounds(folder, settings, d_in, seed)
            self.sink = RoundsSink(rounds, settings.buffer, of["sink"])
        else:
            self.sink = ShuffledSink(
                folder,
                hooks,
                d_in,
                settings.dtype,
                shards=-(-_expected_rows(corpus, name, settings, limit) // settings.shard_rows),
                rng=generator(seed, "extract", "shuffle"),
                state=of["sink"],
            )
        self.record = (
            WindowRecord(folder / "windows", settings, of["record"])
            if name == "validation"
            else None
        )
        self.pool: Tokens | DocumentMeans = (
            Tokens() if settings.pooling == "token" else DocumentMeans(of["pool"])
        )
        self.done, self.read = of["done"], of["read"]
        self.documents, self.last = of["documents"], of["last"]

    def state(self) -> State:
        """How far it is."""
        return {
            "name": self.name,
            "sink": self.sink.state(),
            "record": self.record.state() if self.record else None,
            "pool": self.pool.state(),
            "done": self.done,
            "read": self.read,
            "documents": self.documents,
            "last": self.last,
        }


def _expected_rows(corpus: TokenDocuments, split: str, settings: Extract, limit: int) -> int:
    """About how many activations `split` will give: sets the number of shuffled shards."""
    documents = corpus.split(split)
    lengths = corpus.documents["length"].to_numpy()[documents]
    rows = len(documents) if settings.pooling == "document_mean" else int(lengths.sum())
    return max(1, min(rows, limit))
