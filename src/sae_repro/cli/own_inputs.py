"""A study's own text, activations and labels, read whole before any compute is spent on them."""

from pathlib import Path

from sae_repro.cli.own_rows import check_given
from sae_repro.corpus.found import Found
from sae_repro.corpus.sources import open_files
from sae_repro.corpus.split import check_splits, split_of
from sae_repro.errors import StudyError, one_line, shown
from sae_repro.numerics.hashing import fingerprint
from sae_repro.params import ActivationsSource, FilesSource, StoriesSource, Study
from sae_repro.pins import PinnedFile, pinned_concepts
from sae_repro.readers.spans import Spans, read_spans


def check_own_inputs(study: Study, folder: Path) -> None:
    """Read the study's files as the stages will; `folder` holds params.yaml.

    StudyError for all that `corpus` refuses in them but what only a tokenizer finds, and for labels
    of documents that do not exist. Text of the hub is not read.
    """
    source, labels = study.corpus.source, study.evaluate.concepts
    rows = source.n_documents if isinstance(source, StoriesSource) else None
    if isinstance(source, FilesSource):
        rows = _rows(study, source, folder)
    elif isinstance(source, ActivationsSource):
        rows = check_given(study, source, folder)
    if labels is not None:
        spans = _spans(pinned_concepts(labels, folder))
        if rows is not None:
            spans.check_documents(rows)


def _spans(file: PinnedFile) -> Spans:
    """The labels in `file`; StudyError also for a concept that no line of a table can show."""
    try:
        spans = read_spans(file)
    except OverflowError:  # of an unsigned column
        raise StudyError(
            f"{file.what}: a document, start or end is beyond 64 bits; write positions of tokens"
        ) from None
    for row, name in enumerate(spans.concept, 1):
        if not name.strip() or one_line(name) != name:
            fault = "has a character that no line can show" if name.strip() else "is blank"
            raise StudyError(
                f"{file.what}: row {row}: its concept, {shown(name) or '(no name)'}, {fault}; "
                "rename it"
            )
    return spans


def _rows(study: Study, source: FilesSource, folder: Path) -> int | None:
    """The rows of the text's files; None where corpus.source.n_documents ends the reading."""
    _check_columns(source)
    texts = open_files(source, folder)
    seen: set[bytes] = set()
    filled: set[str] = set()
    count = 0
    for document in texts:
        mark = fingerprint(document.text.encode(), study.seed)
        count += 1
        seen.add(mark)
        filled.add(split_of(mark, study.corpus))
    check_splits(
        filled, Found(count, texts.skipped, count - len(seen), texts.paragraphs), study.corpus
    )
    return None if source.n_documents else count + texts.skipped.total()


def _check_columns(source: FilesSource) -> None:
    """StudyError for a text column that is named twice, or is the label as well."""
    twice = next((name for name in source.columns if source.columns.count(name) > 1), None)
    if twice is not None:
        raise StudyError(
            f"corpus.source.columns: names {shown(twice)} twice, so that each document would hold "
            "it twice; delete one"
        )
    if source.label in source.columns:
        raise StudyError(
            f"corpus.source.label = {shown(source.label)}: is a text column, and a class is one of "
            "many documents; name another column, or delete label"
        )
