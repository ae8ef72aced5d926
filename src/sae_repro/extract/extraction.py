"""Extraction of all splits: forward passes in; shards, statistics and manifest out."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.checkpoint.configuration import shape_of
from sae_repro.errors import StudyError
from sae_repro.extract.norm_limit import NormLimit, NormWatch, limit_from
from sae_repro.extract.norms import Floats, squared_norms
from sae_repro.extract.passes import passes, pooled
from sae_repro.extract.prefixes import seen_in_training
from sae_repro.extract.sinks import OrderedSink, ShuffledSink, Sink
from sae_repro.extract.statistics import Statistics
from sae_repro.files import sha256_file, write_json
from sae_repro.numerics.random import generator
from sae_repro.params import Extract
from sae_repro.progress import say
from sae_repro.readers.agreement import hook_problems, hooks_of
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import SEEN, RowFile
from sae_repro.readers.windows import Windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PROBED = 4096
"""Calibration tokens that the medians of `norm_limit` are measured on."""
NONE = np.zeros(0, dtype=np.int64)
SPLITS = ("train", "calibration", "tuning", "validation")


def extract(
    subject: "TransformerBridge",
    corpus: TokenDocuments,
    settings: Extract,
    *,
    seed: int,
    folder: Path,
    names: Mapping[str, str],
    untrained: "TransformerBridge | None" = None,
    embeddings: "TransformerBridge | None" = None,
) -> dict[str, str]:
    """Extract every split into `folder`; memory holds a batch and a shard, whatever the corpus.

    The SHA-256 of each shard by its path.

    `names`, of the model and its text, go into the manifest as they are. `untrained` is the model
    with random weights for `settings.untrained_hooks`, `embeddings` that with the subject's own
    embeddings for `settings.embeddings_hooks`: they read the same windows in the same order.
    """
    limits = {
        "train": settings.n_tokens,
        "calibration": settings.n_calibration_tokens,
        "tuning": settings.n_tuning_tokens,
        "validation": settings.n_validation_tokens,
    }
    d_in, hooks = int(subject.cfg.d_model), settings.all_hooks
    limit = _norm_limit(subject, corpus, settings)
    watch = NormWatch(hooks, limit)
    statistics = {hook: Statistics(d_in) for hook in hooks}
    tokens: dict[str, int] = {}
    documents: dict[str, int] = {}
    manifest: dict[str, Any] = {
        "hooks": {hook: {"d_in": d_in, "shards": {}} for hook in hooks},
        "index": {},
    }
    for split in SPLITS:
        if split == "tuning" and not len(corpus.split(split)):
            continue  # a study that does not tune
        sink: Sink = (
            ShuffledSink(
                folder,
                hooks,
                d_in,
                settings.dtype,
                shards=-(-_expected_rows(corpus, split, settings, limits[split])
                         // settings.shard_rows),
                rng=generator(seed, "extract", "shuffle"),
            )
            if split == "train"
            else OrderedSink(folder, split, hooks, d_in, settings.dtype, settings.shard_rows)
        )  # fmt: skip
        record = _WindowRecord(folder / "windows", settings) if split == "validation" else None
        documents[split], last = 0, -1
        for rows, index in pooled(
            passes(
                (subject, untrained, embeddings),
                corpus,
                split,
                settings,
                limits[split],
                watch,
                record.append if record else None,
            ),
            settings,
        ):
            if not len(index):
                continue
            for hook, values in rows.items():
                _check_finite(hook, values, index, settings)
                if split == "train":
                    statistics[hook].add(values)
            sink.append(rows, index)
            # a document's rows arrive one after another
            documents[split] += len(np.unique(index[:, 0])) - int(index[0, 0] == last)
            last = int(index[-1, 0])
        shards = sink.close()
        for hook in hooks:
            manifest["hooks"][hook]["shards"][split] = shards[hook]
        manifest["index"][split] = shards["index"]
        tokens[split] = sum(entry["rows"] for entry in shards["index"])
        if not tokens[split]:
            raise _nothing_in(split)
        if record is not None:
            record.close()
    for hook, measured in statistics.items():
        _check_not_constant(hook, measured)
        np.save(folder / hook / "mean.npy", measured.mean)
        manifest["hooks"][hook] |= {
            "dtype": settings.dtype,
            "rms": measured.rms,
            "median_norm": measured.median_norm,
            "norms": watch.reports[hook].facts(),
            "mean_sha256": sha256_file(folder / hook / "mean.npy"),
        }
    manifest |= {"tokens": tokens, "documents": documents, "names": dict(names)}
    for hook, report in watch.reports.items():
        say(f"extract: {hook}: {report.summary()}")
    if limit is not None:
        manifest["left_out"] = limit.facts()
        say(f"extract: {limit.summary()}")
    if settings.untrained_hooks or settings.embeddings_hooks:
        manifest["untrained"] = {"weights_seed": weights_seed(seed)}
    if settings.pooling == "token":
        left_out = {split: limit.left_out(split) if limit else NONE for split in tokens}
        np.save(folder / SEEN, seen_in_training(corpus, settings, limits, left_out))
        manifest["seen"] = sha256_file(folder / SEEN)
    manifest |= settings.model_dump(mode="json", include={"pooling", "context", "prepend_bos"})
    write_json(folder / "manifest.json", manifest)
    return {
        entry["file"]: entry["sha256"]
        for splits in (manifest["index"], *(h["shards"] for h in manifest["hooks"].values()))
        for entries in splits.values()
        for entry in entries
    }


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


def check_fit(settings: Extract, subject: "TransformerBridge") -> None:
    """StudyError where the loaded model lacks a layer, a position or a hook of `settings`."""
    problems = list(hook_problems(settings.model_hooks, hooks_of(subject)))
    model: Any = subject.original_model
    positions = shape_of(model.config, "extract").positions
    if positions and settings.context > positions:
        problems.append(f"context = {settings.context}: the model has {positions} positions")
    if problems:
        raise StudyError("\n".join(f"extract: {line}" for line in problems))


def _expected_rows(corpus: TokenDocuments, split: str, settings: Extract, limit: int) -> int:
    """About how many activations `split` will give: sets the number of shuffled shards."""
    documents = corpus.split(split)
    lengths = corpus.documents["length"].to_numpy()[documents]
    rows = len(documents) if settings.pooling == "document_mean" else int(lengths.sum())
    return max(1, min(rows, limit))


def _check_finite(
    hook: str, values: npt.NDArray[Any], index: npt.NDArray[np.int32], settings: Extract
) -> None:
    """StudyError for a value that is infinite or NaN in the shards' precision."""
    bound = np.finfo(settings.dtype).max
    if values.max(initial=0) <= bound and values.min(initial=0) >= -bound:  # false where NaN
        return
    invalid = ~(np.abs(values) <= bound).all(axis=1)
    row = int(np.argmax(invalid))
    document, position, token = index[row].tolist()
    worst = np.abs(values[row]).max()
    raise StudyError(
        f"extract: {hook} is {worst:g} at document {document}, position {position} (token "
        f"{token}): outside {settings.dtype} (largest {bound:g}); "
        + (
            "set extract.dtype to float32"
            if settings.dtype == "float16" and np.isfinite(worst)
            else "the subject's own activations are broken"
        )
    )


def _check_not_constant(hook: str, measured: Statistics) -> None:
    """StudyError for a hook at which all training activations are one vector."""
    if measured.constant:
        raise StudyError(
            f"extract: {hook} is {'0' if measured.rms == 0 else 'the same vector'} at every "
            "training token: an SAE has nothing to learn there; take it out of extract.hooks (or "
            "untrained_hooks, embeddings_hooks) and give the cells that read it another hook"
        )


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
            file.close()
