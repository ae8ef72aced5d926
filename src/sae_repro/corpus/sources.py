"""Text from files or the hub, document by document; skipped documents are counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.files import digest
from sae_repro.hub import connection_errors, fetching, one_line, reachable
from sae_repro.params import FilesSource, HubSource
from sae_repro.pins import check_files

FORMATS = {".txt": "text", ".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Document:
    """A text and, where the source has one, its class."""

    text: str
    label: str | None


@dataclass
class TextSource:
    """Documents of a source; iterating counts those it skips, by reason, in `skipped`."""

    name: str
    rows: Iterable[dict[str, Any]]
    columns: tuple[str, ...]
    label: str | None
    limit: int | None
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Document]:
        """At most `n_documents` documents with text; StudyError where there are fewer."""
        self.skipped.clear()
        count = 0
        for document in islice(self._texts(), self.limit):
            count += 1
            yield document
        if self.limit is not None and count < self.limit:
            raise StudyError(
                f"corpus.source.n_documents = {self.limit}: {self.name} has only {count} "
                "documents with text; ask for fewer, or leave n_documents out for all"
            )

    def _texts(self) -> Iterator[Document]:
        for row in _unbroken(self.name, self.rows):
            parts = [row[column] for column in self.columns]
            text = "\n".join(part for part in parts if part)
            if not text.strip():
                self.skipped["empty"] += 1
                continue
            yield Document(text, None if self.label is None else _label(row[self.label]))


def _label(value: Any) -> str | None:
    # whole numbers come as floats from a column in which some are missing
    integral = isinstance(value, float) and value.is_integer()
    return None if value is None else str(int(value) if integral else value)


def open_files(source: FilesSource, folder: Path) -> TextSource:
    """The pinned files of a study; `folder` holds its params.yaml."""
    paths = check_files(source, folder)
    kinds = {path.suffix.lower() for path in paths}
    unknown = kinds - set(FORMATS)
    if unknown:
        raise StudyError(
            f"corpus.source.files: {', '.join(sorted(unknown))} can't be read; allowed are "
            f"{', '.join(FORMATS)}"
        )
    if len({FORMATS[kind] for kind in kinds}) > 1:
        raise StudyError(f"corpus.source.files: one format at a time, not {', '.join(kinds)}")
    kind = FORMATS[kinds.pop()]
    name = ", ".join(path.name for path in paths)
    if kind == "text":
        if source.columns or source.label:
            raise StudyError("corpus.source: txt files have no columns; delete columns and label")
        return TextSource(name, _Paragraphs(paths), ("text",), None, source.n_documents)
    for path in paths:
        if kind != "parquet":
            _check_utf8(path)
    rows = _load(
        f"corpus.source.files: {name}",
        kind,
        # `datasets` caches a file by its path and time: only the pins distinguish contents
        name=digest(sorted(source.files.values())),
        data_files=[str(path) for path in paths],
        split="train",
        # a cell that says NA, null or None is text
        **({"keep_default_na": False, "na_values": [""]} if kind == "csv" else {}),
    )
    return _with_columns(name, rows, source.columns, source.label, source.n_documents)


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
    return _with_columns(source.name, rows, source.columns, source.label, source.n_documents)


SOURCES: Mapping[str, Callable[[Any, Path], TextSource]] = {
    "files": open_files,
    "hub": lambda source, folder: open_hub(source),
}
"""By `corpus.source.kind`: its documents, from the section and the folder of params.yaml."""


def _load(source_name: str, *args: Any, **options: Any) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    # local files too would be counted at an outside host, at a network's pace
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


def _with_columns(
    name: str, rows: Any, columns: tuple[str, ...], label: str | None, limit: int | None
) -> TextSource:
    columns = columns or ("text",)
    # a stream may not know its columns before its first row
    names = list(rows.column_names or next(_unbroken(name, rows), {}))
    for key, column in [*(("columns", c) for c in columns), *([("label", label)] if label else [])]:
        if names and column not in names:
            raise StudyError(
                f"corpus.source.{key} = {column}: {name} has no such column; it has "
                f"{', '.join(names)}"
            )
    if names and rows.features is not None:
        for column in columns:
            feature = rows.features[column]
            kind = getattr(feature, "dtype", type(feature).__name__.lower())
            if kind not in ("string", "large_string"):
                raise StudyError(f"corpus.source.columns = {column}: holds {kind}, not text")
    keep = [*dict.fromkeys([*columns, *([label] if label else [])])]
    return TextSource(name, rows.select_columns(keep), columns, label, limit)


class _Paragraphs:
    """Documents of txt files: paragraphs between blank lines."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self._paths:
            lines: list[str] = []
            for line in _utf8_lines(path):
                if line.strip():
                    lines.append(line)
                elif lines:
                    yield {"text": "".join(lines).rstrip("\r\n")}
                    lines = []
            if lines:
                yield {"text": "".join(lines).rstrip("\r\n")}


def _utf8_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise StudyError(
                    f"corpus.source.files: {path} is not UTF-8 (line {number}, byte "
                    f"{error.start + 1} of it); convert it, e.g. iconv -f latin1 -t utf-8"
                ) from None


def _check_utf8(path: Path) -> None:
    for _ in _utf8_lines(path):
        pass
