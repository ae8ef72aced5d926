"""Text from files or the hub, document by document, what is skipped counted."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.hub import reachable, unreachable
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
    """Documents of a source; `skipped` counts, by reason, what iterating left out."""

    name: str
    rows: Iterable[dict[str, Any]]
    columns: tuple[str, ...]
    label: str | None
    wanted: int | None
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Document]:
        """At most `n_documents` documents with text; StudyError where there are fewer."""
        self.skipped.clear()
        found = 0
        for document in islice(self._texts(), self.wanted):
            found += 1
            yield document
        if self.wanted is not None and found < self.wanted:
            raise StudyError(
                f"corpus.source.n_documents = {self.wanted}: {self.name} has only {found} "
                "documents with text; ask for fewer, or leave n_documents out for all"
            )

    def _texts(self) -> Iterator[Document]:
        for row in self.rows:
            parts = [row[column] for column in self.columns]
            text = "\n".join(part for part in parts if part)
            if not text.strip():
                self.skipped["empty"] += 1
                continue
            label = None if self.label is None or row[self.label] is None else str(row[self.label])
            yield Document(text, label)


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
        data_files=[str(path) for path in paths],
        split="train",
    )
    return _with_columns(name, rows, source.columns, source.label, source.n_documents)


def open_hub(source: HubSource) -> TextSource:
    """A data set of the hub at its pinned commit; StudyError within seconds without the hub."""
    what = f"corpus.source: {source.name} at {source.revision}"
    reachable(what)
    try:
        rows = _load(
            what,
            source.name,
            name=source.config,
            split=source.split,
            revision=source.revision,
            streaming=source.streaming,
        )
    except OSError as error:
        raise unreachable(what, error) from None
    return _with_columns(source.name, rows, source.columns, source.label, source.n_documents)


def _load(what: str, *args: Any, **options: Any) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(*args, **options)
    except (DatasetsError, ValueError) as error:
        cause = error.__cause__ or error
        raise StudyError(f"{what}: {' '.join(str(cause).split())[:300]}") from None


def _with_columns(
    name: str, rows: Any, columns: tuple[str, ...], label: str | None, wanted: int | None
) -> TextSource:
    columns = columns or ("text",)
    known = list(rows.column_names or [])
    for key, column in [*(("columns", c) for c in columns), *([("label", label)] if label else [])]:
        if known and column not in known:
            raise StudyError(
                f"corpus.source.{key} = {column}: {name} has no such column; it has "
                f"{', '.join(known)}"
            )
    if known and rows.features is not None:
        for column in columns:
            kind = getattr(rows.features[column], "dtype", "?")
            if kind not in ("string", "large_string"):
                raise StudyError(f"corpus.source.columns = {column}: holds {kind}, not text")
    keep = [*dict.fromkeys([*columns, *([label] if label else [])])]
    return TextSource(name, rows.select_columns(keep), columns, label, wanted)


class _Paragraphs:
    """Documents of txt files: what stands between blank lines."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self._paths:
            lines: list[str] = []
            for line in _utf8_lines(path):
                if line.strip():
                    lines.append(line)
                elif lines:
                    yield {"text": "".join(lines).rstrip("\n")}
                    lines = []
            if lines:
                yield {"text": "".join(lines).rstrip("\n")}


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
