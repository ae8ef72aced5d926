"""Extraction of all splits: forward passes in; shards, statistics and manifest out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.errors import StudyError
from sae_repro.extract.checks import check_finite, check_not_constant
from sae_repro.extract.norm_limit import NormLimit, NormWatch, limit_from
from sae_repro.extract.norms import Floats, squared_norms
from sae_repro.extract.passes import passes
from sae_repro.extract.pool import DocumentMeans, Tokens
from sae_repro.extract.prefixes import seen_in_training
from sae_repro.extract.resumption import States
from sae_repro.extract.sinks import OrderedSink, ShuffledSink, Sink
from sae_repro.extract.statistics import Statistics
from sae_repro.files import sha256_file, write_json
from sae_repro.numerics.random import generator
from sae_repro.params import Extract
from sae_repro.progress import say
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import SEEN, RowFile
from sae_repro.readers.windows import Windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PROBED = 4096
"""Calibration tokens that the medians of `norm_limit` are measured on."""
NONE = np.zeros(0, dtype=np.int64)
SPLITS = ("train", "calibration", "tuning", "validation")


@dataclass(frozen=True)
class Inputs:
    """What is read; `names`, of the model and its text, go into the manifest as they are.

    `untrained` is the model with random weights for `extract.untrained_hooks`, `embeddings` that
    with the subject's own embeddings for `embeddings_hooks`: they read the same windows in the same
    order.
    """

    subject: "TransformerBridge"
    corpus: TokenDocuments
    names: Mapping[str, str]
    untrained: "TransformerBridge | None" = None
    embeddings: "TransformerBridge | None" = None


def extract(inputs: Inputs, settings: Extract, *, seed: int, states: States) -> dict[str, str]:
    """Extract every split into the folder of `states`, from the last state on if there is one.

    Memory holds a batch and a shard, whatever the corpus. The SHA-256 of each shard by its path.
    """
    extraction = states.load()
    if extraction is None:
        extraction = Extraction(inputs, settings, seed, states.folder)
    else:
        extraction.say_resumed()
    for split in SPLITS:
        if split == "tuning" and not len(inputs.corpus.split(split)):
            continue  # a study that does not tune
        if split not in extraction.tokens:
            extraction.split(split, inputs, states)
    return extraction.finish(inputs)


class Extraction:
    """What an extraction needs to go on: all but models, corpus and rows, which are on disk."""

    def __init__(self, inputs: Inputs, settings: Extract, seed: int, folder: Path) -> None:
        d_in, hooks = int(inputs.subject.cfg.d_model), settings.all_hooks
        self.settings, self.seed, self.folder, self.d_in = settings, seed, folder, d_in
        self.limits = {
            "train": settings.n_tokens,
            "calibration": settings.n_calibration_tokens,
            "tuning": settings.n_tuning_tokens,
            "validation": settings.n_validation_tokens,
        }
        self.watch = NormWatch(hooks, _norm_limit(inputs.subject, inputs.corpus, settings))
        self.statistics = {hook: Statistics(d_in) for hook in hooks}
        self.tokens: dict[str, int] = {}
        """Rows by split, of those that are finished."""
        self.documents: dict[str, int] = {}
        self.manifest: dict[str, Any] = {
            "hooks": {hook: {"d_in": d_in, "shards": {}} for hook in hooks},
            "index": {},
        }
        self.current: _Split | None = None

    def say_resumed(self) -> None:
        """Say where it goes on."""
        where = f", pass {self.current.done + 1} of {self.current.name}" if self.current else ""
        say(f"extract: goes on where it was stopped: {len(self.tokens)} splits finished{where}")

    def split(self, split: str, inputs: Inputs, states: States) -> None:
        """Extract a split, or what is left of it."""
        now = self.current
        if now is None:
            now = self.current = _Split(self, split, inputs.corpus)
        if not now.read:
            models = (inputs.subject, inputs.untrained, inputs.embeddings)
            record = now.record.append if now.record else None
            for rows, index in passes(
                models,
                inputs.corpus,
                split,
                self.settings,
                self.limits[split],
                self.watch,
                record,
                now.done,
            ):
                now.done += 1
                now.unsaved += len(index)
                for batch in now.pool.add(rows, index):
                    self._take(now, *batch)
                if now.unsaved >= self.settings.shard_rows:
                    now.unsaved = 0
                    states.save(self)
            for batch in now.pool.finish():
                self._take(now, *batch)
            now.read = True
            states.save(self)  # rows are put in order by files, from here on
        self._close(now)
        self.current = None
        states.save(self)

    def _take(
        self, now: "_Split", rows: dict[str, npt.NDArray[Any]], index: npt.NDArray[np.int32]
    ) -> None:
        for hook, values in rows.items():
            check_finite(hook, values, index, self.settings)
            if now.name == "train":
                self.statistics[hook].add(values)
        now.sink.append(rows, index)
        # a document's rows arrive one after another
        now.documents += len(np.unique(index[:, 0])) - int(index[0, 0] == now.last)
        now.last = int(index[-1, 0])

    def _close(self, now: "_Split") -> None:
        shards = now.sink.close()
        for hook in self.settings.all_hooks:
            self.manifest["hooks"][hook]["shards"][now.name] = shards[hook]
        self.manifest["index"][now.name] = shards["index"]
        rows = sum(entry["rows"] for entry in shards["index"])
        if not rows:
            raise _nothing_in(now.name)
        if now.record is not None:
            now.record.close()
        self.tokens[now.name], self.documents[now.name] = rows, now.documents

    def finish(self, inputs: Inputs) -> dict[str, str]:
        """Write the statistics and the manifest; the SHA-256 of each shard by its path."""
        settings, folder, manifest = self.settings, self.folder, self.manifest
        for hook, measured in self.statistics.items():
            check_not_constant(hook, measured)
            np.save(folder / hook / "mean.npy", measured.mean)
            manifest["hooks"][hook] |= {
                "dtype": settings.dtype,
                "rms": measured.rms,
                "median_norm": measured.median_norm,
                "norms": self.watch.reports[hook].facts(),
                "mean_sha256": sha256_file(folder / hook / "mean.npy"),
            }
            say(f"extract: {hook}: {self.watch.reports[hook].summary()}")
        manifest |= {
            "tokens": self.tokens,
            "documents": self.documents,
            "names": dict(inputs.names),
        }
        if (limit := self.watch.limit) is not None:
            manifest["left_out"] = limit.facts()
            say(f"extract: {limit.summary()}")
        if settings.untrained_hooks or settings.embeddings_hooks:
            manifest["untrained"] = {"weights_seed": weights_seed(self.seed)}
        if settings.pooling == "token":
            left_out = {split: limit.left_out(split) if limit else NONE for split in self.tokens}
            np.save(folder / SEEN, seen_in_training(inputs.corpus, settings, self.limits, left_out))
            manifest["seen"] = sha256_file(folder / SEEN)
        manifest |= settings.model_dump(mode="json", include={"pooling", "context", "prepend_bos"})
        write_json(folder / "manifest.json", manifest)
        return {
            entry["file"]: entry["sha256"]
            for splits in (manifest["index"], *(h["shards"] for h in manifest["hooks"].values()))
            for entries in splits.values()
            for entry in entries
        }


class _Split:
    """The split that is being extracted."""

    def __init__(self, extraction: Extraction, name: str, corpus: TokenDocuments) -> None:
        settings, folder = extraction.settings, extraction.folder
        hooks, d_in = settings.all_hooks, extraction.d_in
        self.name = name
        self.sink: Sink = (
            ShuffledSink(
                folder,
                hooks,
                d_in,
                settings.dtype,
                shards=-(-_expected_rows(corpus, name, settings, extraction.limits[name])
                         // settings.shard_rows),
                rng=generator(extraction.seed, "extract", "shuffle"),
            )
            if name == "train"
            else OrderedSink(folder, name, hooks, d_in, settings.dtype, settings.shard_rows)
        )  # fmt: skip
        self.record = _WindowRecord(folder / "windows", settings) if name == "validation" else None
        self.pool = Tokens() if settings.pooling == "token" else DocumentMeans()
        self.done, self.unsaved, self.read = 0, 0, False
        """Passes made, tokens since the last state, whether none is left."""
        self.documents, self.last = 0, -1


def _norm_limit(
    subject: "TransformerBridge", corpus: TokenDocuments, settings: Extract
) -> NormLimit | None:
    """The rule of `settings.norm_limit`, its medians those of the first calibration tokens.

    Calibration is in every study, and no reported number comes from it.
    """
    if settings.norm_limit is None:
        return None
    own = settings.model_copy(update={"untrained_hooks": (), "embeddings_hooks": ()})
    found: dict[str, list[Floats]] = {hook: [] for hook in own.hooks}
    for rows, _ in passes((subject, None, None), corpus, "calibration", own, PROBED):
        for hook, norms in found.items():
            norms.append(np.sqrt(squared_norms(rows[hook])))
    if not found[own.hooks[0]]:
        raise _nothing_in("calibration")
    return limit_from(
        {hook: np.concatenate(norms) for hook, norms in found.items()}, settings.norm_limit
    )


def _nothing_in(split: str) -> StudyError:
    return StudyError(
        f"extract: no {split} activations; the corpus has no {split} document with a real "
        "token (raise corpus.source.n_documents or the split's fraction)"
    )


def weights_seed(seed: int) -> int:
    """Seed of the random weights in a study with this seed."""
    return int(generator(seed, "extract", "untrained").integers(2**63))


def _expected_rows(corpus: TokenDocuments, split: str, settings: Extract, limit: int) -> int:
    """About how many activations `split` will give: sets the number of shuffled shards."""
    documents = corpus.split(split)
    lengths = corpus.documents["length"].to_numpy()[documents]
    rows = len(documents) if settings.pooling == "document_mean" else int(lengths.sum())
    return max(1, min(rows, limit))


class _WindowRecord:
    """The language model's input rows, for evaluations that run it again."""

    def __init__(self, folder: Path, settings: Extract) -> None:
        self._files = {
            "tokens": RowFile(folder / "tokens.npy", settings.context, np.int32),
            "mask": RowFile(folder / "mask.npy", settings.context, np.bool_),
            "document": RowFile(folder / "document.npy", 1, np.int32),
            "length": RowFile(folder / "length.npy", 1, np.int32),
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
