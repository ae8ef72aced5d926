"""A study's given activations and their table, read whole before any compute is spent on them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.corpus.classes import check_classes
from sae_repro.corpus.found import Found
from sae_repro.corpus.split import check_splits, split_of
from sae_repro.errors import StudyError, shown
from sae_repro.numerics.hashing import fingerprint
from sae_repro.params import ActivationsSource, Study
from sae_repro.pins import PinnedFile, pinned_activations
from sae_repro.readers.given import Given, read_given
from sae_repro.tables import reader_of
from sae_repro.tables.cells import Cell, Column

TABLE = "corpus.source.table"
FP32 = np.finfo(np.float32)
BYTES = 1 << 24  # of fp32 rows that are looked at together

Ints = npt.NDArray[np.int64]


def check_given(study: Study, source: ActivationsSource, folder: Path) -> int:
    """The number of rows, activations and table read as by the stages; `folder` holds params.yaml.

    StudyError where a value is NaN or beyond `extract.dtype`, where the table has not a row for
    each or lacks a column, and where a split has no documents.
    """
    given = read_given(source, folder)
    files = pinned_activations(source, folder)
    _check_values(given, files, study.extract.dtype)
    seen: set[bytes] = set()
    filled: set[str] = set()
    count = 0
    documents = (
        _single(given)
        if source.table is None
        else _of_table(given, _grouped(source, files[-1], given.rows))
    )
    for content in documents:
        mark = fingerprint(content, study.seed)
        count += 1
        seen.add(mark)
        filled.add(split_of(mark, study.corpus))
    check_splits(filled, Found(count, Counter(), count - len(seen)), study.corpus)
    return given.rows


def _check_values(given: Given, files: Sequence[PinnedFile], dtype: str) -> None:
    """StudyError for the first value that shards of `dtype` can't hold, by its index in its file.

    Values are what is read of them: a float64 too large for fp32 is infinite. So is a row whose
    norm is, and where all values are below the smallest normal number their scale divides by 0.
    """
    bound = float(np.finfo(dtype).max)
    begin, most = 0, 0.0
    for file, part in zip(files, given.parts, strict=False):
        for first, x_nd in _blocks(given, begin, begin + len(part)):
            size_nd = np.abs(x_nd)
            outside_nd = ~(size_nd <= bound)  # true where NaN
            if outside_nd.any():
                row, column = np.argwhere(outside_nd)[0].tolist()
                raise _refused(file, part, (first - begin + row, column), dtype)
            largest = float(size_nd.max())
            if largest > FP32.max / given.width**0.5:
                raise StudyError(
                    f"{file.what}: values reach {largest:g}, so that norms may be beyond float32 "
                    f"(largest {FP32.max:g}); scale the activations"
                )
            most = max(most, largest)
        begin += len(part)
    if most < FP32.tiny:
        raise StudyError(
            "corpus.source.files: "
            + (f"no value is above {most:g}" if most else "all values are 0")
            + ": an SAE has nothing to learn there; scale the activations, or give others"
        )


def _refused(file: PinnedFile, part: Any, at: tuple[int, int], dtype: str) -> StudyError:
    value = part[at]
    what = f"{file.what}: [{at[0]}, {at[1]}] is {value:g}"
    if not np.isfinite(value):
        return StudyError(f"{what}; activations must be finite: leave such rows out")
    advice = "scale the activations" if dtype == "float32" else "set extract.dtype to float32"
    return StudyError(
        f"{what}, more than {dtype} holds (largest {np.finfo(dtype).max:g}); {advice}"
    )


def _blocks(given: Given, begin: int, end: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(the first row, rows [n, D]) of parts of `given` from row `begin` to `end`."""
    most = max(1, BYTES // (4 * given.width))
    for first in range(begin, end, most):
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            yield first, given.take(np.arange(first, min(first + most, end)))


def _single(given: Given) -> Iterator[bytes]:
    """Each row as the content of a document."""
    for _, x_nd in _blocks(given, 0, given.rows):
        yield from map(np.ndarray.tobytes, x_nd)


def _of_table(given: Given, documents: Sequence[Ints]) -> Iterator[bytes]:
    """The content of each document: its rows, in their order."""
    for row_n in documents:
        yield given.take(row_n).tobytes()


def _grouped(source: ActivationsSource, file: PinnedFile, rows: int) -> list[Ints]:
    """The rows of each document of a table; StudyError where its cells don't fit them."""
    assert source.table is not None
    if file.path.suffix.lower() == ".txt":
        raise StudyError(f"{file.what}: txt has no columns; write parquet, csv or jsonl")
    asked = {what: getattr(source.table, what) for what in ("document", "position", "text")}
    columns = [
        Column(name, "whole" if what == "position" else "label", f"{TABLE}.{what} = {shown(name)}")
        for what, name in (*asked.items(), *(("label", name) for name in source.table.labels))
        if name is not None
    ]
    with file.opened() as opened:
        read = list(reader_of(file.name, file.key)(opened, file.what, columns))
    if len(read) != rows:
        raise StudyError(
            f"{file.what}: {len(read):,} rows, and the activations have {rows:,}; give a row for "
            "each"
        )
    of_column = dict(zip((column.asked for column in columns), zip(*read, strict=True),
                         strict=True))  # fmt: skip
    document_n = of_column[columns[0].asked]
    if None in document_n:
        raise StudyError(
            f"{file.what}: row {document_n.index(None) + 1} names no document; name one for each "
            "row"
        )
    for name in source.table.labels:
        what = f"{TABLE}.label = {shown(name)}"
        check_classes(what, of_column[what], document_n)
    place_n = of_column[columns[1].asked] if asked["position"] else range(rows)
    of_document: dict[Cell, list[int]] = {}
    for row, document in enumerate(document_n):
        of_document.setdefault(document, []).append(row)
    return [
        np.array(sorted(of, key=lambda row: int(place_n[row] or 0)), dtype=np.int64)
        for of in of_document.values()
    ]
