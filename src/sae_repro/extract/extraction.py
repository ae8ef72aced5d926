"""Extraction of all splits: forward passes in; shards, statistics and manifest out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_repro.errors import StudyError
from sae_repro.extract.checks import check_finite, check_not_constant
from sae_repro.extract.norm_limit import NormLimit, NormWatch, limit_from
from sae_repro.extract.norms import Floats, squared_norms
from sae_repro.extract.passes import Batch, passes
from sae_repro.extract.prefixes import seen_in_training
from sae_repro.extract.resumption import States
from sae_repro.extract.rolling import RoundsSink
from sae_repro.extract.split import Split
from sae_repro.extract.state import State
from sae_repro.extract.statistics import Statistics
from sae_repro.files import sha256_file, write_json
from sae_repro.numerics.random import generator
from sae_repro.params import Extract, model_hook
from sae_repro.progress import say
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.hooked import hook_widths
from sae_repro.readers.shards import SEEN

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

    def restored(state: State) -> Extraction:
        return Extraction(inputs, settings, seed, states.folder, state)

    extraction = states.load(restored)
    if extraction is None:
        extraction = Extraction(inputs, settings, seed, states.folder)
    else:
        extraction.say_resumed()
    for split in SPLITS:
        if split == "tuning" and not len(inputs.corpus.split(split)):
            continue  # a study that does not tune
        if split not in extraction.tokens:
            extraction.split(split, inputs, states)
    extraction.save(states)  # files that were to be deleted when it was stopped
    return extraction.finish(inputs)


class Extraction:
    """An extraction into `folder`, from `state` on if there is one."""

    def __init__(
        self,
        inputs: Inputs,
        settings: Extract,
        seed: int,
        folder: Path,
        state: State | None = None,
    ) -> None:
        hooks, widths = settings.all_hooks, hook_widths(inputs.subject, settings.model_hooks)
        d_in = {hook: widths[model_hook(hook)] for hook in hooks}
        self.settings, self.seed, self.folder, self.d_in = settings, seed, folder, d_in
        self.limits = {
            "train": settings.n_tokens,
            "calibration": settings.n_calibration_tokens,
            "tuning": settings.n_tuning_tokens,
            "validation": settings.n_validation_tokens,
        }
        self.tokens: dict[str, int] = {}
        """Rows by split, of those that are finished."""
        self.documents: dict[str, int] = {}
        self.manifest: dict[str, Any] = {
            "hooks": {hook: {"d_in": d_in[hook], "shards": {}} for hook in hooks},
            "index": {},
        }
        if settings.buffer is not None:
            self.manifest |= {"buffer": settings.buffer, "starts": [{"pass": 0, "skip": 0}]}
        self.current: Split | None = None
        if state is None:
            self.watch = NormWatch(hooks, norm_limit_of(inputs.subject, inputs.corpus, settings))
            self.statistics = {hook: Statistics(d_in[hook]) for hook in hooks}
            return
        self.watch = NormWatch.of(state["watch"])
        self.statistics = {hook: Statistics.of(state["statistics"][hook]) for hook in hooks}
        self.tokens, self.documents = state["tokens"], state["documents"]
        self.manifest = state["manifest"]
        if (split := state["split"]) is not None:
            self.current = self._split(split["name"], inputs, split)

    def state(self) -> State:
        """All that is needed to go on, beside inputs and the files of `folder`."""
        return {
            "watch": self.watch.state(),
            "statistics": {hook: part.state() for hook, part in self.statistics.items()},
            "tokens": self.tokens,
            "documents": self.documents,
            "manifest": self.manifest,
            "split": self.current.state() if self.current else None,
        }

    def _split(self, name: str, inputs: Inputs, state: State | None = None) -> Split:
        return Split(
            name,
            self.settings,
            inputs.corpus,
            d_in=self.d_in,
            limit=self.limits[name],
            seed=self.seed,
            folder=self.folder,
            state=state,
        )

    def say_resumed(self) -> None:
        """Say where it goes on."""
        where = f", pass {self.current.done + 1} of {self.current.name}" if self.current else ""
        say(f"extract: goes on where it was stopped: {len(self.tokens)} splits finished{where}")

    def split(self, split: str, inputs: Inputs, states: States) -> None:
        """Extract a split, or what is left of it."""
        now = self.current
        if now is None:
            now = self.current = self._split(split, inputs)
        self._end_rounds(now, states)
        if not now.read:
            unsaved = 0
            models = (inputs.subject, inputs.untrained, inputs.embeddings)
            record = now.record.append if now.record else None
            for batch in passes(
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
                unsaved += len(batch.index)
                for pooled in now.pool.add(batch):
                    self._take(now, pooled)
                self._end_rounds(now, states)
                if unsaved >= self.settings.shard_rows:
                    unsaved = 0
                    self.save(states)
            for pooled in now.pool.finish():
                self._take(now, pooled)
            now.read = True
            self.save(states)  # rows are put in order by files, from here on
        self._close(now)
        self.current = None
        self.save(states)

    def _take(self, now: Split, batch: Batch) -> None:
        rows, index = batch.rows, batch.index
        for hook, values in rows.items():
            check_finite(hook, values, index, self.settings)
            if now.name == "train":
                self.statistics[hook].add(values, batch.moments.get(hook))
        now.sink.append(rows, index)
        # a document's rows arrive one after another
        now.documents += len(np.unique(index[:, 0])) - int(index[0, 0] == now.last)
        now.last = int(index[-1, 0])

    def _end_rounds(self, now: Split, states: States) -> None:
        """End the rounds of `extract.buffer` that are full.

        The manifest's `starts` has of each round its first pass, and the rows of it to skip.
        """
        sink = now.sink
        while isinstance(sink, RoundsSink) and sink.full:
            self.save(states)  # rows are put in order by files, until the next one
            self.manifest["starts"].append({"pass": now.done - 1, "skip": sink.skipped})
            sink.turn()
            self.save(states)

    def save(self, states: States) -> None:
        """Save the state; rounds that `extract.keep` leaves out are deleted after that."""
        gone: list[str] = []
        if self.settings.keep == "buffer":
            sink = self.current.sink if self.current else None
            shards = sink.ended if isinstance(sink, RoundsSink) else self._shards("train")
            gone = [entry["file"] for entry in shards if entry["round"]]
        states.save(self.state(), without=gone)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)

    def _shards(self, split: str) -> list[dict[str, Any]]:
        """The finished shards of all hooks and of the index."""
        hooks = (hook["shards"] for hook in self.manifest["hooks"].values())
        return [
            entry for splits in (*hooks, self.manifest["index"]) for entry in splits.get(split, [])
        ]

    def _close(self, now: Split) -> None:
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
            entry["file"]: entry["sha256"] for split in self.tokens for entry in self._shards(split)
        }


def norm_limit_of(
    subject: "TransformerBridge", corpus: TokenDocuments, settings: Extract
) -> NormLimit | None:
    """The rule of `settings.norm_limit`, its medians those of the first calibration tokens.

    Calibration is in every study, and no reported number comes from it.
    """
    if settings.norm_limit is None:
        return None
    own = settings.model_copy(update={"untrained_hooks": (), "embeddings_hooks": ()})
    found: dict[str, list[Floats]] = {hook: [] for hook in own.hooks}
    for batch in passes((subject, None, None), corpus, "calibration", own, PROBED):
        for hook, norms in found.items():
            norms.append(np.sqrt(squared_norms(batch.rows[hook])))
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
