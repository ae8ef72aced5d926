"""Classes of given rows, from several columns of their table: concepts that SAEs are scored on."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.concepts.bank import load_bank
from sae_repro.concepts.halves import fit_documents
from sae_repro.errors import StudyError
from sae_repro.files import read_json, sha256_file
from sae_repro.params import parse
from sae_repro.preflight import check_inputs
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore

from .in_process import carry_out
from .test_given import study

N, D, DOCUMENTS = 2400, 8, 800
CLASSES = ("a", "b", "c")  # of either kind: equal values, other documents


def write_rows(**columns: Any) -> pd.DataFrame:
    """x.npy, a direction for each class of either kind, and the table rows.csv; what it holds."""
    rng = np.random.default_rng(0)
    story = np.sort(rng.integers(DOCUMENTS, size=N))
    kinds = {kind: rng.integers(3, size=DOCUMENTS) for kind in ("genre", "mood")}
    x = 0.02 * rng.normal(size=(N, D))
    for first, of_document in zip((0, 3), kinds.values(), strict=True):
        x[np.arange(N), first + of_document[story]] += rng.uniform(0.5, 1.5, size=N)
    np.save("x.npy", x.astype(np.float32))
    table = pd.DataFrame({"story": [f"s{number}" for number in story]})
    for kind, of_document in kinds.items():
        table[kind] = [CLASSES[of_document[number]] for number in story]
    table = table.assign(**columns)
    table.to_csv("rows.csv", index=False)
    return table


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    return write_rows()


def labelled(label: Any, **changes: Any) -> dict[str, Any]:
    """A study whose documents have the classes of `label`, and no text."""
    declared = study()
    declared["corpus"]["source"]["table"] = {
        "path": "rows.csv", "sha256": sha256_file(Path("rows.csv")), "document": "story",
        "label": label,
    }  # fmt: skip
    declared["corpus"]["validation"] = 0.6
    topk = {"expansion": 1, "activation": "topk", "k": 2}
    return {**declared, "cells": {"topk": topk}, **changes}


def test_several_columns_are_concepts_of_documents_scored_by_m_and_probes(
    rows: pd.DataFrame,
) -> None:
    declared = labelled(["genre", "mood"], train={"batch_size": 64, "epochs": 40})
    check_inputs(parse(declared), Path())
    carry_out(declared, "corpus", "subject", "extract", "train", "evaluate", "judge", "control",
              "compare", "report")  # fmt: skip
    of_documents = rows.groupby("story", sort=False).first()
    documents = pd.read_parquet("artifacts/corpus/documents.parquet")
    for kind in ("genre", "mood"):
        assert list(documents[f"label:{kind}"]) == list(of_documents[kind])
    names = {f"document:{kind}={name}" for kind in ("genre", "mood") for name in CLASSES}
    bank = load_bank(
        Path("artifacts/corpus"), ActivationStore(Path("artifacts/extract")).index("validation")
        .whole(), 0,
    )  # fmt: skip
    assert set(bank.names) == names and set(bank.kinds) == {"document"}
    for name, column in zip(bank.names, bank.labels.toarray().T, strict=True):
        kind, _, value = name.removeprefix("document:").partition("=")
        expected = of_documents[kind].to_numpy()[bank.document] == value
        assert np.array_equal(column, expected)
    latents = pd.read_parquet("artifacts/evaluate/topk/monosemantic.parquet")
    found = latents[latents["M"] > 0.7]["concept"]
    # the planted directions: each class of either kind has a latent of its own
    assert set(found) == names
    concepts = pd.read_parquet("artifacts/evaluate/topk/concepts.parquet")
    assert set(concepts["concept"]) == names and (concepts["probe_auc_1"] > 0.8).all()
    measured = read_json(Path("artifacts/evaluate/topk/metrics.json"))
    assert measured["counts"]["concepts"] == len(names)
    (line,) = measured["not_measured"]
    assert line.endswith("fidelity, references")
    assert "document:mood=b" in "".join(
        path.read_text() for path in Path("reports/explorer/data").rglob("*.js")
    )


def test_a_name_and_a_list_of_one_name_are_one_choice(rows: pd.DataFrame) -> None:
    held = []
    for label in ("genre", ["genre"]):
        carry_out(labelled(label), "corpus", "subject", "extract")
        folder = Path("artifacts/corpus")
        names = ("documents.parquet", "tokens.npy", "rows.npy", "fingerprints.npy")
        held.append([(folder / name).read_bytes() for name in names])
        index = ActivationStore(Path("artifacts/extract")).index("validation").whole()
        bank = load_bank(folder, index, 0)
        assert set(bank.names) == {f"document:{name}" for name in CLASSES}
    assert held[0] == held[1]
    documents = pd.read_parquet("artifacts/corpus/documents.parquet")
    assert [name for name in map(str, documents) if name.startswith("label")] == ["label"]


def test_documents_of_one_text_stand_on_both_sides_and_copies_on_one(rows: pd.DataFrame) -> None:
    x = np.load("x.npy")
    copies = np.concatenate([x, x])
    np.save("x.npy", copies)
    twice = pd.concat([rows, rows.assign(story=rows["story"] + "'", genre="d")])
    twice.to_csv("rows.csv", index=False)
    carry_out(labelled("genre"), "corpus")
    corpus = TokenDocuments.load(Path("artifacts/corpus"))
    fit = fit_documents(corpus, 0)
    held_out = (corpus.documents["split"] == "validation").to_numpy()
    names = corpus.documents["label"].to_numpy()
    for name in CLASSES:  # which are all that a row shows
        assert 0.3 < fit[held_out & (names == name)].mean() < 0.7
    half = len(corpus.documents) // 2
    assert np.array_equal(fit[:half], fit[half:])


def test_without_a_class_nothing_is_scored_on_concepts(rows: pd.DataFrame) -> None:
    write_rows(nothing="")
    carry_out(labelled("nothing"), "corpus", "subject", "extract", "train", "evaluate")
    (line,) = read_json(Path("artifacts/evaluate/topk/metrics.json"))["not_measured"]
    assert line.endswith("fidelity, monosemanticity, structure, references")


@pytest.mark.parametrize(
    ("label", "line"),
    [
        (["genre", "modo"], "table.label = modo: rows.csv has no such column; it has story, genre, "
                            "mood, age, grade, mixed; did you mean mood"),
        ("age", r"table.label = age: \d+ different numbers for \d+ documents; a class is of many"),
        (["genre", "mixed"], "table.label = mixed: rows of document s0 carry 0 and 1, and a doc"),
    ],
)  # fmt: skip
def test_columns_that_hold_no_classes_are_refused_by_name(
    rows: pd.DataFrame, label: Any, line: str
) -> None:
    number = rows["story"].str[1:].astype(int)
    write_rows(age=number / 7, grade=number % 6, mixed=np.arange(N) % 2)
    with pytest.raises(StudyError, match=line):
        carry_out(labelled(label), "corpus")
    carry_out(labelled(["genre", "grade"]), "corpus")  # few numbers are classes


@pytest.mark.parametrize(
    ("label", "line"),
    [
        (["genre", "genre"], "label = genre, genre: names a column twice"),
        (["a=b", "mood"], "label = a=b: classes of several columns are named column=value"),
        (3, "label = 3: must be a valid string: put it in quotes$"),
        (["genre", 3], "label.1 = 3: must be a valid string: put it in quotes$"),
        ([], "label = .*at least 1 item"),
    ],
)
def test_what_names_no_columns_is_refused(rows: pd.DataFrame, label: Any, line: str) -> None:
    with pytest.raises(StudyError, match=f"corpus.source.table.{line}|corpus.source.table: {line}"):
        parse(labelled(label))
