"""Given activations into the store: rows of their files, by split, as extraction leaves them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sae_repro.contents import check
from sae_repro.errors import StudyError
from sae_repro.extract.checks import check_finite
from sae_repro.extract.passes import Batch
from sae_repro.extract.pool import DocumentMeans, Tokens
from sae_repro.extract.sinks import OrderedSink, ShuffledSink, Sink
from sae_repro.extract.statistics import Statistics
from sae_repro.files import read_json, sha256_file, write_json
from sae_repro.numerics.random import generator
from sae_repro.params import GIVEN, ActivationsSource, Extract, check_section
from sae_repro.progress import bar, say
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.given import Given, read_given
from sae_repro.readers.shards import GIVEN_ROWS

SPLITS = ("train", "calibration", "tuning", "validation")
ROWS = 4096  # of a batch


def write_given(corpus: Path, settings: Extract, *, seed: int, folder: Path, study: Path) -> None:
    """Write the activations that artifacts/corpus was made of; `study` holds params.yaml.

    `pooling` and the numbers of tokens of `settings` hold as for a model's. No norm limit: it is of
    language models.
    """
    check(corpus)
    documents = TokenDocuments.load(corpus)
    facts = read_json(corpus / "corpus.json")
    source = check_section(ActivationsSource, facts["source"], within="corpus.source")
    given = read_given(source, study)
    limits = {
        "train": settings.n_tokens,
        "calibration": settings.n_calibration_tokens,
        "tuning": settings.n_tuning_tokens,
        "validation": settings.n_validation_tokens,
    }
    manifest: dict[str, Any] = {
        "hooks": {GIVEN: {"d_in": given.width, "shards": {}}}, "index": {}, "tokens": {},
        "documents": {}, "names": {"model_name": "none", "dataset_path": documents.name},
        "pooling": GIVEN_ROWS, "context": 1, "prepend_bos": False,
    }  # fmt: skip
    statistics = Statistics(given.width)
    for split in SPLITS:
        if not len(documents.split(split)):
            continue  # tuning, where nothing is tuned
        sink: Sink
        if split == "train":
            count = min(limits[split], given.rows)
            sink = ShuffledSink(
                folder, [GIVEN], given.width, settings.dtype,
                shards=-(-count // settings.shard_rows), rng=generator(seed, "extract", "shuffle"),
            )  # fmt: skip
        else:
            sink = OrderedSink(
                folder, split, [GIVEN], given.width, settings.dtype, settings.shard_rows
            )
        seen: set[int] = set()
        for batch in _rows(given, documents, split, limits[split], settings):
            check_finite(GIVEN, batch.rows[GIVEN], batch.index, settings)
            if split == "train":
                statistics.add(batch.rows[GIVEN])
            sink.append(batch.rows, batch.index)
            seen.update(batch.index[:, 0].tolist())
        shards = sink.close()
        manifest["hooks"][GIVEN]["shards"][split] = shards[GIVEN]
        manifest["index"][split] = shards["index"]
        manifest["tokens"][split] = sum(entry["rows"] for entry in shards["index"])
        manifest["documents"][split] = len(seen)
    if statistics.constant:
        raise StudyError(
            f"extract: {', '.join(source.files)}: all training rows are the same vector: an SAE "
            "has nothing to learn there"
        )
    np.save(folder / GIVEN / "mean.npy", statistics.mean)
    manifest["hooks"][GIVEN] |= {
        "dtype": settings.dtype,
        "rms": statistics.rms,
        "median_norm": statistics.median_norm,
        "mean_sha256": sha256_file(folder / GIVEN / "mean.npy"),
    }
    write_json(folder / "manifest.json", manifest)
    rows = ", ".join(f"{count:,} {split}" for split, count in manifest["tokens"].items())
    say(f"extract: given activations, D = {given.width}: rows {rows}; no language model was run")


def _rows(
    given: Given, documents: TokenDocuments, split: str, limit: int, settings: Extract
) -> Iterator[Batch]:
    """The first `limit` rows of a split, document by document."""
    place_n = np.load(documents.folder / "rows.npy", mmap_mode="r", allow_pickle=False)
    start, end = documents.bounds(documents.split(split))
    length = end - start
    document = np.repeat(documents.split(split), length)[:limit]
    position = (np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length))[:limit]
    at = np.repeat(start, length)[:limit] + position
    pool: Tokens | DocumentMeans = Tokens() if settings.pooling == "token" else DocumentMeans()
    with bar(f"extract {split}", unit="row", total=len(at)) as progress:
        for begin in range(0, len(at), ROWS):
            part = slice(begin, begin + ROWS)
            index = np.stack([document[part], position[part], documents.tokens[at[part]]], axis=1)
            rows = {GIVEN: given.take(place_n[at[part]])}
            progress.update(len(index))
            yield from pool.add(Batch(rows, index.astype(np.int32), {}))
        yield from pool.finish()
