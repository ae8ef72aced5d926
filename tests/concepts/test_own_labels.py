"""Labels of a study's own, by rows of its source: placed exactly, or refused with their row."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_repro.cli.own_inputs import check_own_inputs
from sae_repro.cli.studies import pin_inputs
from sae_repro.concepts import bank as concepts
from sae_repro.concepts.bank import ConceptBank, check_spans, load_bank
from sae_repro.corpus.writing import write_texts
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.params import ConceptLabels, Corpus, TrainedSubject, parse
from sae_repro.pins import PinnedFile, pinned_concepts
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.spans import read_spans

from ..params.test_check import STUDY
from ..pipeline.in_process import study

Span = tuple[int, int, int, str]
COLUMNS = ("document", "start", "end", "concept")
N = 120
WORDS = np.random.default_rng(0).integers(0, 9, (N, 12)).tolist()
TEXTS = ["" if n % 5 == 0 else " ".join(map(str, row)) for n, row in enumerate(WORDS)]
TEXTS[7] = "."


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concepts, "LEAST", 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenDocuments:
    """120 rows in two files, of which each fifth has no text and row 7 one token."""
    study = tmp_path_factory.mktemp("own")
    for name, part in (("b.jsonl", TEXTS[:50]), ("a.jsonl", TEXTS[50:])):
        (study / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    pins = {name: sha256_file(study / name) for name in ("b.jsonl", "a.jsonl")}
    source = {"kind": "files", "files": pins}
    settings_ = {"source": source, "validation": 0.4, "calibration": 0.1, "vocabulary": 300}
    folder = study / "corpus"
    folder.mkdir()
    subject = TrainedSubject(kind="train")
    write_texts(Corpus.model_validate(settings_), subject, 0, folder, study=study)
    return TokenDocuments.load(folder)


def index_of(corpus: TokenDocuments) -> np.ndarray:
    rows = [
        (d, p, int(token))
        for d in corpus.split("validation").tolist()
        for p, token in enumerate(corpus.document(d))
    ]
    return np.array(rows, dtype=np.int32)


def rows_in(corpus: TokenDocuments, split: str) -> list[int]:
    documents = corpus.documents
    return documents.loc[documents["split"] == split, "row"].tolist()


def pinned(path: Path) -> PinnedFile:
    labels = ConceptLabels(path=path.name, sha256=sha256_file(path))
    return pinned_concepts(labels, path.parent)


def save(path: Path, spans: Iterable[tuple[Any, ...]]) -> PinnedFile:
    """The spans in the format that the path's end names, their columns in an order of its own."""
    frame = pd.DataFrame(list(spans), columns=list(COLUMNS))[
        ["concept", "end", "document", "start"]
    ]
    match path.suffix:
        case ".parquet":
            frame.to_parquet(path)
        case ".csv":
            frame.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    return pinned(path)


def places(bank: ConceptBank, corpus: TokenDocuments, name: str) -> set[tuple[int, int]]:
    """(row of the source, position) of each token that carries the concept."""
    marked = bank.labels[:, [bank.names.index(name)]].nonzero()[0]
    row = corpus.documents["row"].to_numpy()[bank.document[marked]]
    return set(zip(row.tolist(), bank.position[marked].tolist(), strict=True))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), suffix=st.sampled_from([".parquet", ".csv", ".jsonl"]))
def test_a_span_marks_its_tokens_of_the_row_that_the_user_knows(
    data: st.DataObject, suffix: str, corpus: TokenDocuments, tmp_path: Path
) -> None:
    length = dict(
        zip(corpus.documents["row"].tolist(), corpus.documents["length"].tolist(), strict=True)
    )

    @st.composite
    def span(draw: Any) -> Span:
        row = draw(st.integers(0, N - 1))
        end = draw(st.integers(1, length.get(row, 5)))
        return row, draw(st.integers(0, end - 1)), end, draw(st.sampled_from(["x", "1", "01", "ü"]))

    held_out = rows_in(corpus, "validation")
    spans = [(row, 0, 2, "all") for row in held_out] + data.draw(st.lists(span(), max_size=10))
    spans = data.draw(st.permutations(spans))
    bank = load_bank(corpus.folder, index_of(corpus), 0, save(tmp_path / f"a{suffix}", spans))
    for name in {f"user:{concept}" for *_, concept in spans} & set(bank.names):
        expected = {
            (row, position)
            for row, begin, end, concept in spans
            for position in range(begin, end)
            if f"user:{concept}" == name and row in held_out
        }
        assert places(bank, corpus, name) == expected
    assert "user:all" in bank.names


def test_a_documents_row_is_that_of_its_text(corpus: TokenDocuments) -> None:
    tokenizer = corpus.tokenizer()
    for number, row in enumerate(corpus.documents["row"].tolist()):
        assert tokenizer.decode(corpus.document(number)) == TEXTS[row]


def refused(corpus: TokenDocuments, labels: PinnedFile) -> str:
    with pytest.raises(StudyError) as caught:
        load_bank(corpus.folder, index_of(corpus), 0, labels)
    with pytest.raises(StudyError) as first:
        list(check_spans(corpus.folder, index_of(corpus), labels))
    assert str(first.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_that_mark_no_token_are_refused_with_where_they_are(
    corpus: TokenDocuments, tmp_path: Path
) -> None:
    train, calibration = (rows_in(corpus, split)[:3] for split in ("train", "calibration"))
    spans = [(row, 0, 1, "x") for row in [*train, *calibration, 0, 5, 7]]
    message = refused(corpus, save(tmp_path / "a.csv", spans))
    assert (
        f"none of its {len(spans)} spans marks a held-out token: 3 in training documents, "
        f"{len(calibration)} in calibration documents, 3 in rows without text or of one token"
    ) in message
    assert "Only validation documents count" in message


def test_concepts_that_mark_no_token_are_named(corpus: TokenDocuments, tmp_path: Path) -> None:
    held_out, train = rows_in(corpus, "validation"), rows_in(corpus, "train")
    spans = [(held_out[0], 0, 1, "seen"), (train[0], 0, 1, "unseen"), (0, 0, 1, "nowhere")]
    (line,) = check_spans(corpus.folder, index_of(corpus), save(tmp_path / "a.csv", spans))
    assert "a.csv: no held-out token carries user:nowhere, user:unseen: left out" in line
    assert not list(
        check_spans(corpus.folder, index_of(corpus), save(tmp_path / "b.csv", spans[:1]))
    )


def test_spans_beyond_what_there_is_are_refused(corpus: TokenDocuments, tmp_path: Path) -> None:
    row = rows_in(corpus, "train")[0]
    length = int(corpus.documents.set_index("row")["length"][row])
    good = (rows_in(corpus, "validation")[0], 0, 1, "x")
    message = refused(corpus, save(tmp_path / "a.csv", [good, (row, 0, length + 1, "x")]))
    assert f"row 2: end {length + 1}, but document {row} has {length} tokens" in message
    message = refused(corpus, save(tmp_path / "b.csv", [good, (N, 0, 1, "x")]))
    assert f"row 2: document {N} does not exist: the text has {N} rows" in message


FAULTS = [
    ((-1, 0, 1, "x"), "row 2: document -1, start 0, end 1: document and start must be ≥ 0"),
    ((0, -1, 1, "x"), "row 2: document 0, start -1"),
    ((0, 3, 3, "x"), "and start before end"),
    ((0, 0, 1, None), "row 2 names no concept"),
    ((0, 0, 1, ""), "row 2 names no concept"),
    ((0.5, 0, 1, "x"), "not a whole number"),
    ((1.0, 0, 1, "x"), "not"),
    ((None, 0, 1, "x"), "not"),
    (("0", 0, 1, "x"), "not a whole number"),
    ((True, 0, 1, "x"), "not"),
]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("fault", "says"), FAULTS, ids=str)
def test_faulty_spans_are_refused_when_they_are_read(
    fault: tuple[Any, ...], says: str, suffix: str, tmp_path: Path
) -> None:
    if suffix == ".csv" and fault[0] == "0":
        pytest.skip("in a csv all is text")
    path = tmp_path / f"a{suffix}"
    spans = [(0, 0, 1, "x"), fault]
    if suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *spans])
    elif suffix == ".jsonl":
        rows = [dict(zip(COLUMNS, span, strict=True)) for span in spans]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        # a column of parquet has one type: as pandas makes it, or of the fault alone
        alone = pd.DataFrame([fault] * 2, columns=list(COLUMNS))
        mixed = isinstance(fault[0], str | bool)
        (alone if mixed else pd.DataFrame(spans, columns=list(COLUMNS))).to_parquet(path)
        says = says if says.startswith(("row", "and")) else "not whole numbers"
    with pytest.raises(StudyError) as caught:
        read_spans(pinned(path))
    assert says in str(caught.value)
    assert "evaluate.concepts" in str(caught.value)


def test_a_file_of_labels_is_pinned_and_has_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "spans.parquet"
    pd.DataFrame({"document": [1], "start": [3], "concept": ["x"]}).to_parquet(path)
    with pytest.raises(StudyError, match=r"the column end: spans\.parquet has no such column"):
        read_spans(pinned(path))
    labels = pinned(path)
    concepts = {"path": "spans.parquet", "sha256": "0" * 64}
    params = {**study("0" * 64), "evaluate": {"concepts": concepts}}
    params["corpus"] = {"source": {"kind": "stories", "n_documents": 100}}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    assert pin_inputs(tmp_path) == [f"evaluate.concepts.sha256: {'0' * 64} → {labels.sha256}"]
    assert labels.sha256 in (tmp_path / "params.yaml").read_text()
    path.write_bytes(b"other")
    with pytest.raises(StudyError, match=r"evaluate\.concepts\.path: .* has changed"):
        read_spans(labels)
    with pytest.raises(StudyError, match="can't be read beyond row 0"):
        read_spans(pinned(path))
    path.unlink()
    with pytest.raises(StudyError, match="is missing"):
        read_spans(labels)
    (tmp_path / "a.csv").write_text("document,start,end,concept\n")
    with pytest.raises(StudyError, match="no labels in it"):
        read_spans(pinned(tmp_path / "a.csv"))
    (tmp_path / "a.txt").write_text("0 0 1 x")
    with pytest.raises(StudyError, match="write parquet, csv or jsonl"):
        read_spans(pinned(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("concept", "end", "says"),
    [
        ("fruit", 1, ""),
        ("👩‍👩‍👧 חתול", 1, ""),
        ("  ", 1, "row 2: its concept, .*is blank; rename it"),
        ("a\nb", 1, r"row 2: its concept, a\\nb, has a character that no line can show"),
        ("\x1b[2K", 1, r"row 2: its concept, \\x1b\[2K, has a character that no line can show"),
        ("fruit", 2**63, "beyond 64 bits"),
    ],
)
def test_check_refuses_labels_that_no_table_can_show(
    concept: str, end: int, says: str, tmp_path: Path
) -> None:
    table = {"document": [0, 0], "start": [0, 0], "end": np.array([1, end], dtype=np.uint64),
             "concept": ["a", concept]}  # fmt: skip
    pd.DataFrame(table).to_parquet(tmp_path / "spans.parquet")
    pin = {"path": "spans.parquet", "sha256": sha256_file(tmp_path / "spans.parquet")}
    declared = parse({**STUDY, "evaluate": {"concepts": pin}})
    if not says:
        check_own_inputs(declared, tmp_path)
        return
    with pytest.raises(StudyError, match=says):
        check_own_inputs(declared, tmp_path)
