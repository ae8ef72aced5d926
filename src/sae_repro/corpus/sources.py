"""Text from files or the hub, document by document; skipped documents are counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sae_repro.corpus.found import Found
from sae_repro.errors import Named, StudyError, shown
from sae_repro.hub import connection_errors, fetching, one_line, reachable
from sae_repro.params import FilesSource, HubSource
from sae_repro.pins import PinnedFile, pinned_texts
from sae_repro.tables import Reader, reader_of
from sae_repro.tables.cells import Cell, Column, places, refused
from sae_repro.tables.paragraphs import paragraphs

TEXT = "text"  # the column that is read where none is named


@dataclass(frozen=True)
class Document:
    """A text and, where the source has one, its class."""

    row: int
    """Its row in the source, from 0, over all files in their order; rows without text count."""
    text: str
    label: str | None


@dataclass
class TextSource:
    """Documents of a source; iterating counts those it skips, by reason, in `skipped`."""

    name: str
    read: Callable[[], Iterable[Sequence[Cell]]]
    """Begins to read anew: the parts of each row's text, then its label, if there is one."""
    label: str | None
    limit: int | None
    paragraphs: bool = False
    """Whether documents are what stands between blank lines."""
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Document]:
        """At most `n_documents` documents with text; StudyError where there are fewer, or none."""
        self.skipped.clear()
        count, labels = 0, 0
        for document in self._texts():
            yield document
            count += 1
            labels += document.label is not None
            if count == self.limit:
                break
        found, name = Found(count, self.skipped), shown(self.name, most=300)
        if not count:
            raise StudyError(f"corpus.source: {name}: no documents in it{found.left_out()}")
        if self.limit is not None and count < self.limit:
            raise StudyError(
                f"corpus.source.n_documents = {self.limit}: {name} has only {count} "
                f"documents with text{found.left_out()}; ask for fewer, or leave n_documents out "
                "for all"
            )
        if self.label is not None and not labels:
            raise StudyError(
                f"corpus.source.label = {shown(self.label)}: none of the {count} documents "
                f"of {name} has one; delete label, or choose another column"
            )

    def _texts(self) -> Iterator[Document]:
        for number, row in enumerate(self.read()):
            parts, label = (row, None) if self.label is None else (row[:-1], row[-1])
            text = "\n".join(str(part) for part in parts if part)
            if not text.strip():
                self.skipped["empty"] += 1
                continue
            yield Document(number, text, None if label is None else str(label))


def open_files(source: FilesSource, folder: Path) -> TextSource:
    """The pinned files of a study; `folder` holds its params.yaml."""
    files = pinned_texts(source, folder)
    readers = {reader_of(file.name, file.key): file.path.suffix.lower() for file in files}
    if len(readers) > 1:
        raise StudyError(
            f"corpus.source.files: one format at a time, not {', '.join(readers.values())}"
        )
    (reader,) = readers
    if reader is paragraphs and (source.columns or source.label):
        raise StudyError("corpus.source: txt files have no columns; delete columns and label")
    return TextSource(
        name=", ".join(file.path.name for file in files),
        read=partial(_rows, files, reader, _columns(source)),
        label=source.label,
        limit=source.n_documents,
        paragraphs=reader is paragraphs,
    )


def _columns(source: FilesSource | HubSource) -> list[Column]:
    """The columns of the text, then that of the label."""
    texts = [
        Column(name, "text", f"corpus.source.columns = {shown(name)}")
        for name in source.columns or (TEXT,)
    ]
    if source.label is None:
        return texts
    return [*texts, Column(source.label, "label", f"corpus.source.label = {shown(source.label)}")]


def _rows(
    files: Sequence[PinnedFile], reader: Reader, columns: Sequence[Column]
) -> Iterator[Sequence[Cell]]:
    for file in files:
        with file.opened() as opened:
            yield from reader(opened, file.what, columns)


def open_hub(source: HubSource) -> TextSource:
    """A data set of the hub at its pinned commit; StudyError within seconds without the hub."""
    source_name = f"corpus.source: {source.name} at {source.revision}"
    reachable(source_name)
    with fetching(source_name):
        rows = _load(
            source_name,
            source.name,
            name=source.config,
            split=source.split,
            revision=source.revision,
            streaming=source.streaming,
        )
    columns = _columns(source)
    return TextSource(
        name=source.name,
        read=partial(_hub_rows, source.name, _with_columns(source.name, rows, columns), columns),
        label=source.label,
        limit=source.n_documents,
    )


SOURCES: Mapping[str, Callable[[Any, Path], TextSource]] = {
    "files": open_files,
    "hub": lambda source, folder: open_hub(source),
}
"""By `corpus.source.kind`: its documents, from the section and the folder of params.yaml."""


def _load(source_name: str, *args: Any, **options: Any) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    # counted at another host than the hub, at a network's pace
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        return datasets.load_dataset(*args, **options)
    except (DatasetsError, ValueError) as error:
        text = one_line(error.__cause__ or error)
        if "corresponds to no data" in text:
            text = "no documents in it"
        raise StudyError(f"{source_name}: {text}") from None


def _unbroken(name: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from datasets.exceptions import DatasetsError

    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except (DatasetsError, ValueError, *connection_errors()) as error:
        raise StudyError(
            f"corpus.source: {name} can't be read beyond row {number} ({one_line(error)}); "
            "repair it, or run again if the connection broke"
        ) from None


def _with_columns(name: str, rows: Any, columns: Sequence[Column]) -> Any:
    """`rows` with no other columns than these; StudyError where one is missing or holds no text."""
    # a stream may not know its columns before its first row
    names = list(rows.column_names or next(_unbroken(name, rows), {}))
    if names:
        places(columns, names, name)
    if names and rows.features is not None:
        for column in columns:
            feature = rows.features[column.name]
            kind = getattr(feature, "dtype", type(feature).__name__.lower())
            if column.kind == "text" and kind not in ("string", "large_string"):
                raise StudyError(f"{column.asked}: {name} holds {kind}, not text")
    return rows.select_columns(list(dict.fromkeys(column.name for column in columns)))


def _hub_rows(name: str, rows: Any, columns: Sequence[Column]) -> Iterator[Sequence[Cell]]:
    for number, row in enumerate(_unbroken(name, rows), 1):
        cells = []
        for column in columns:
            value = row[column.name]
            if column.kind == "label":
                value = _label(value)
            elif value is not None and not isinstance(value, str):
                raise refused(Named("corpus.source", name), f"row {number}", column, repr(value))
            cells.append(value)
        yield cells


def _label(value: Any) -> str | None:
    # whole numbers come as floats from a column in which some are missing
    integral = isinstance(value, float) and value.is_integer()
    return None if value is None else str(int(value) if integral else value)
