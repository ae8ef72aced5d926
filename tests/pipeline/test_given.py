"""Studies of given activations: no language model, all stages, every format of file."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.numpy import save_file
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.cli.own_inputs import check_own_inputs
from sae_repro.errors import StudyError
from sae_repro.files import read_json, sha256_file
from sae_repro.latents import activations_of
from sae_repro.params import ActivationsSource, parse
from sae_repro.preflight import check_inputs
from sae_repro.readers.given import read_given
from sae_repro.readers.shards import ActivationStore

from .in_process import carry_out

N, D, DOCUMENTS = 900, 6, 150
TABLE = {"path": "rows.csv", "document": "story", "position": "place", "text": "word",
         "label": "genre"}  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Sparse sums of 12 directions in the working folder's x.npy, and their table, rows.csv."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    rng = np.random.default_rng(0)
    z = rng.random((N, 12)) * (rng.random((N, 12)) < 0.2)
    x = (z @ rng.normal(size=(12, D)) + 0.01 * rng.normal(size=(N, D))).astype(np.float32)
    np.save("x.npy", x)
    story = rng.integers(DOCUMENTS, size=N)
    pd.DataFrame(
        {
            "story": [f"s{number}" for number in story],
            "place": rng.permutation(N),
            "word": [f"w{number % 7}" for number in range(N)],
            "genre": [f"g{number % 3}" for number in story],
        }
    ).to_csv("rows.csv", index=False)
    return x


def study(table: bool = True, **extract: Any) -> dict[str, Any]:
    source: dict[str, Any] = {"kind": "activations", "files": {"x.npy": sha256_file(Path("x.npy"))}}
    if table:
        source["table"] = {**TABLE, "sha256": sha256_file(Path("rows.csv"))}
    topk = {"expansion": 2, "activation": "topk", "k": 2}
    return {
        "root": ".", "seed": 0, "compute": {},
        "corpus": {"source": source, "validation": 0.2, "calibration": 0.1},
        "subject": {"source": {"kind": "none"}},
        "extract": {"hooks": ["activations"], "threads": 1, **extract},
        "train": {"batch_size": 64, "epochs": 2, "log_every": 10, "checkpoint_every": 10},
        "evaluate": {}, "judge": {}, "control": {"worlds": []},
        "compare": {"matched_l0": [2], "bootstrap": 100}, "report": {},
        "track": {"experiment": "given"}, "recipes": {},
        "cells": {"topk": {**topk, "seeds": [0, 1]}, "neurons": {"baseline": "neurons"},
                  "vanilla": {"expansion": 2, "penalty": "l1", "lambda": 1e-2}},
    }  # fmt: skip


def test_given_activations_go_from_a_file_to_the_report(rows: np.ndarray) -> None:
    declared = study()
    check_inputs(parse(declared), Path())
    carry_out(declared, "corpus", "subject", "extract", "train", "evaluate", "judge", "control",
              "compare", "report")  # fmt: skip
    store = ActivationStore(Path("artifacts/extract"))
    table = pd.read_csv("rows.csv")
    documents = pd.read_parquet("artifacts/corpus/documents.parquet")
    known = {tuple(row): number for number, row in enumerate(rows.tolist())}
    found: list[int] = []
    for split in ("train", "calibration", "validation"):
        x, index = (part.whole() for part in (store.activations("activations", split),
                                              store.index(split)))  # fmt: skip
        number_n = [known[tuple(row)] for row in x.tolist()]
        found += number_n
        of = documents.iloc[index[:, 0]]
        assert set(of["split"]) == {split}
        assert list(of["label"]) == list(table["genre"].iloc[number_n])
        for _, group in table.iloc[number_n].assign(p=index[:, 1]).groupby("story"):
            assert list(group.sort_values("place")["p"]) == list(range(len(group)))
    assert sorted(found) == list(range(N))  # a story is in one split: each row is there once
    measured = read_json(Path("artifacts/evaluate/topk/metrics.json"))
    assert measured["metrics"]["fvu"] < 0.6
    assert "kl" not in measured["metrics"] or measured["metrics"]["kl"] is None
    (line,) = measured["not_measured"]
    assert line.endswith("language model: fidelity, references")
    assert line in Path("reports/tables/cells.md").read_text()
    contexts = pd.read_parquet("artifacts/evaluate/topk/seed-0/contexts.parquet")
    assert set(contexts["token"].str.strip()) <= {f"w{number}" for number in range(7)}
    page = Path("reports/index.html").read_text()
    assert re.search(r"up to \d+ rows' activations; .* held-out rows\.</p>", page)
    assert "log₁₀ of the fraction of tokens" not in page and "of the tokens" not in page
    said = {path.name: path.read_text() for path in Path("reports/tables").glob("*.md")}
    assert "Activations were given: read tokens as rows." in said.pop("METRICS.md")
    assert "L0 (latents per row)" in said["cells.md"]
    for name, text in said.items():
        assert not re.search(r"\btokens?\b", text), name
    for figure in Path("reports/figures").glob("*.svg"):
        assert "latents per token" not in figure.read_text(), figure
    entries = Path("reports/explorer/data/index.js").read_text()
    assert entries.count('"unit":"rows"') == 2
    commands_know_that_there_is_no_model(declared)


def commands_know_that_there_is_no_model(declared: dict[str, Any]) -> None:
    with Path("params.yaml").open("w") as file:
        YAML().dump(declared, file)
    export = ["export", "topk/seed-0", "--to", "out", "--format"]
    for arguments in (
        ["explain", "a text", "--cell", "topk"],
        ["steer", "a text", "--cell", "topk", "--latent", "0=1"],
        [*export, "neuronpedia"],
    ):
        refused = CliRunner().invoke(app, arguments).exception
        assert isinstance(refused, StudyError) and "activations were given" in str(refused)
    with pytest.raises(StudyError, match="activations were given"):
        activations_of("a text", hook="activations")
    assert CliRunner().invoke(app, [*export, "saelens", "--card"]).exit_code == 0
    card = Path("out/README.md").read_text()
    assert "# topk SAE of given activations\n" in card
    pin = sha256_file(Path("x.npy"))
    assert f"| activations | given activations, files, x.npy (sha256 {pin}) |" in card
    assert "| training rows | " in card and "| language model |" not in card


def test_rows_without_a_table_are_documents_and_means_are_over_documents(rows: np.ndarray) -> None:
    carry_out(study(table=False), "corpus", "subject", "extract")
    assert ActivationStore(Path("artifacts/extract")).manifest["documents"]["train"] > N / 2
    carry_out(study(pooling="document_mean"), "corpus", "subject", "extract")
    store = ActivationStore(Path("artifacts/extract"))
    x, index = (part.whole() for part in (store.activations("activations", "validation"),
                                          store.index("validation")))  # fmt: skip
    first = pd.read_parquet("artifacts/corpus/documents.parquet")["row"].iloc[index[:, 0]]
    table = pd.read_csv("rows.csv")
    for value, row in zip(x, first, strict=True):
        of_story = (table["story"] == table["story"].iloc[row]).to_numpy()
        assert np.allclose(value, rows[of_story].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.parquet", "lists.parquet", "x.pt",
                                  "list.pt", "named.pt"])  # fmt: skip
def test_every_format_gives_the_same_rows(rows: np.ndarray, name: str) -> None:
    match name:
        case "x.safetensors":
            save_file({"x": rows}, name)
        case "x.parquet":
            pd.DataFrame(rows, columns=[f"d{n}" for n in range(D)]).to_parquet(name)
        case "lists.parquet":
            pd.DataFrame({"x": list(rows)}).to_parquet(name)
        case "x.pt":
            torch.save(torch.from_numpy(rows), name)
        case "list.pt":
            torch.save(list(torch.from_numpy(rows)), name)
        case "named.pt":
            torch.save({"x": torch.from_numpy(rows), "other": torch.zeros(3)}, name)
    source = ActivationsSource(
        kind="activations",
        files={file: sha256_file(Path(file)) for file in (name, "x.npy")},
        tensor="x" if name == "named.pt" else None,
    )  # fmt: skip
    given = read_given(source, Path())
    order = np.random.default_rng(1).permutation(given.rows)
    assert np.array_equal(given.take(order), np.concatenate([rows, rows])[order])


def test_what_no_sae_can_be_trained_on_is_refused_before_compute(rows: np.ndarray) -> None:
    def refused(change: dict[str, Any], line: str) -> None:
        with pytest.raises(StudyError, match=line):
            check_inputs(parse({**study(), **change}), Path())

    refused({"subject": {"source": {"kind": "train"}, "training": {}}}, "go together")
    refused({"extract": {"hooks": ["blocks.0.hook_resid_post"]}}, r"write hooks: \[activations\]")
    refused({"cells": {"a": {"expansion": 2, "activation": "topk", "k": 13}}}, r"1 … 12")
    declared = study()
    np.save("x.npy", rows[:-1])
    with pytest.raises(StudyError, match="has changed"):
        check_inputs(parse(declared), Path())
    with pytest.raises(StudyError, match="900 rows, and the activations have 899"):
        carry_out(study(), "corpus")
    np.save("x.npy", rows[0])
    with pytest.raises(StudyError, match=r"\[6\] of float32; activations are numbers \[N, D\]"):
        check_inputs(parse(study()), Path())
    np.save("x.npy", np.where(rows > 1, np.nan, rows))
    carry_out(study(), "corpus")
    with pytest.raises(StudyError, match="activations is nan"):
        carry_out(study(), "extract")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: np.where(x == x[700, 3], np.nan, x), r"\[700, 3\] is nan; .* must be finite"),
        (lambda x: np.where(x == x[700, 3], -np.inf, x), r"\[700, 3\] is -inf; .* must be finite"),
        (lambda x: np.where(x == x[700, 3], 1e300, x.astype(float)), r"1e\+300, more than float32"),
        (lambda x: np.where(x == x[700, 3], 3e38, x), r"values reach 3e\+38, .* beyond float32"),
        (lambda x: x * np.float32(1e-42), "no value is above .*; scale the activations"),
        (lambda x: np.abs(x * 0), "all values are 0"),
        (lambda x: np.repeat(x[:1], N, axis=0), "899 of them copies of others"),
    ],
)
def test_values_that_no_sae_can_be_trained_on_are_refused_by_check(
    change: Any, says: str, rows: np.ndarray
) -> None:
    np.save("x.npy", change(rows))
    with pytest.raises(StudyError, match=says):
        check_own_inputs(parse(study(table=False)), Path())


def test_values_too_large_for_half_precision_are_refused_by_check(rows: np.ndarray) -> None:
    np.save("x.npy", rows * 1e5)
    check_own_inputs(parse(study(table=False)), Path())
    with pytest.raises(StudyError, match=r"float16 holds .*; set extract.dtype to float32"):
        check_own_inputs(parse(study(table=False, dtype="float16")), Path())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t, ""),
        (lambda t: t[:-1], "899 rows, and the activations have 900"),
        (lambda t: t.rename(columns={"place": "plaec"}), r"table.position = place: .*plaec\?"),
        (lambda t: t.assign(place=t["place"] + 0.5), "column place: holds .*not a whole number"),
        (lambda t: t.assign(story=t["story"].mask(t.index == 7)), "row 8 names no document"),
        (lambda t: t.assign(genre=["a", "b"] * (N // 2)), "a document has one class"),
        (lambda t: t.assign(story="s", genre="a"), "1 document leave none for calibration"),
    ],
)
def test_a_table_that_does_not_fit_the_rows_is_refused_by_check_and_by_the_stage(
    change: Any, says: str, rows: np.ndarray
) -> None:
    change(pd.read_csv("rows.csv")).to_csv("rows.csv", index=False)
    declared = study()
    if not says:
        check_own_inputs(parse(declared), Path())
        return
    with pytest.raises(StudyError, match=says):
        check_own_inputs(parse(declared), Path())
    with pytest.raises(StudyError, match=says.replace("row 8", "row 7")):
        carry_out(declared, "corpus")


def test_a_table_without_columns_is_refused_by_check(rows: np.ndarray) -> None:
    declared = study()
    Path("rows.txt").write_text("one\n\ntwo\n")
    table = {**TABLE, "path": "rows.txt", "sha256": sha256_file(Path("rows.txt"))}
    declared["corpus"]["source"]["table"] = table
    with pytest.raises(StudyError, match="txt has no columns"):
        check_own_inputs(parse(declared), Path())
