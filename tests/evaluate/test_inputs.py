"""The inputs of evaluations: their hash follows every file that an evaluation reads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sae_repro.cellstore import CellStore
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.files import write_text
from sae_repro.params import Corpus, Evaluate, StoriesSource
from sae_repro.stage import StageContext

WINDOWS = ("tokens", "mask", "document", "length")


@pytest.fixture
def shared(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], str]:
    """The hash of the inputs that lie in artifacts/ now."""
    make_store(name="artifacts/extract")
    source = StoriesSource(kind="stories", n_documents=100)
    write_stories(Corpus(source=source), source, 0, tmp_path / "artifacts" / "corpus")
    windows = tmp_path / "artifacts" / "extract" / "windows"
    windows.mkdir()
    for name in WINDOWS:
        np.save(windows / f"{name}.npy", np.zeros((2, 2), dtype=np.int32))
    (tmp_path / "artifacts" / "subject").mkdir()
    write_text(tmp_path / "artifacts" / "subject" / "config.json", "{}")
    write_text(tmp_path / "artifacts" / "subject" / "model.safetensors", "weights")
    monkeypatch.chdir(tmp_path)
    context = StageContext("evaluate", {"seed": 0})
    return lambda: Evaluation.of(context, Evaluate(), CellStore(tmp_path / "cells")).shared


@pytest.mark.parametrize(
    "file",
    [
        "corpus/tokens.npy",
        "corpus/documents.parquet",
        "corpus/labels.npy",
        "corpus/concepts.json",
        "corpus/tokenizer/tokenizer.json",
        "extract/manifest.json",
        *(f"extract/windows/{name}.npy" for name in WINDOWS),
        "subject/config.json",
        "subject/model.safetensors",
    ],
)
def test_a_changed_input_gives_every_evaluation_another_key(
    file: str, shared: Callable[[], str]
) -> None:
    before = shared()
    assert shared() == before
    path = Path("artifacts") / file
    path.write_bytes(path.read_bytes() + b" ")
    assert shared() != before


def test_a_cell_with_fewer_metrics_has_a_key_of_its_own(
    shared: Callable[[], str], tmp_path: Path
) -> None:
    shared()
    context = StageContext("evaluate", {"seed": 0})
    settings = Evaluate(only={"vanilla-*": ("dictionary",), "*-x8": ()})
    every = Evaluation.of(context, settings, CellStore(tmp_path / "cells"))
    first, none, whole = (every.for_cell(name) for name in ("vanilla-x8", "topk-x8", "topk-x4"))
    assert first.settings.metrics == ("dictionary",) and none.settings.metrics == ()
    assert len({first.shared, none.shared, whole.shared}) == 3
    assert whole.shared == shared()  # other cells' keys stay what they are
    assert first.shared_by_cells == none.shared_by_cells == whole.shared_by_cells
    assert len({hash(first), hash(none), hash(whole)}) == 3  # results are kept by it


def test_cells_that_measure_less_share_what_a_process_holds(tmp_path: Path) -> None:
    """The concept bank and a hook's untouched passes are kept by the evaluation without metrics."""
    chosen = Evaluate.model_validate({"only": {"few-*": ["dictionary"], "none-*": []}})
    study = Evaluation(
        settings=chosen, seed=0, inputs="", trainer="", store=tmp_path, corpus=tmp_path,
        subject=tmp_path, activations=tmp_path,
    )  # fmt: skip
    cells = [study.for_cell(name) for name in ("few-1", "none-1", "other")]
    assert len({cell.shared for cell in cells}) == 3
    assert {cell.common for cell in cells} == {cells[0].common}
    assert {cell.shared_by_cells for cell in cells} == {cells[0].common.shared_by_cells}
    assert replace(cells[0], seed=1).common != cells[0].common
