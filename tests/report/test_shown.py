"""Which SAEs the explorer shows, and what the page's parts are made of."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_array

from sae_repro.files import write_json
from sae_repro.params import Report, read_cells
from sae_repro.report.details import histogram
from sae_repro.report.parts import Run, prose
from sae_repro.report.relations import correlated
from sae_repro.report.shown import shown_saes

CELLS = read_cells(
    {},
    {
        "a": {"expansion": 4, "activation": "topk", "k": 8},
        "b": {"expansion": 4, "activation": "topk", "k": 16, "seeds": [3, 5, 7]},
        "c": {"expansion": 4, "penalty": "l1", "lambda": 1e-2},
        "random": {"expansion": 4, "activation": "topk", "k": 16,
                   "hook": "untrained/blocks.0.hook_resid_post"},
    },
)  # fmt: skip


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """The metrics.json of each SAE: seed 3 of b failed."""
    for name, cell in CELLS.items():
        for place in cell.members():
            status = "failed" if (name, place) == ("b", "seed-3") else "ok"
            write_json(tmp_path / "evaluate" / name / place / "metrics.json", {"status": status})
    return tmp_path


@pytest.mark.parametrize(
    ("section", "targets", "expected"),
    [
        ({}, (8, 16, 32), ["b/seed-5", "b/seed-7"]),
        ({"seeds": 1}, (8, 16, 32), ["b/seed-5"]),
        ({}, (8,), ["a"]),
        ({}, (64,), ["a"]),
        ({"explorer": ("c", "r*")}, (16,), ["c", "random"]),
        ({"explorer": ()}, (16,), []),
    ],
)
def test_the_cells_of_the_middle_target_or_those_named_are_shown(
    artifacts: Path, section: dict[str, object], targets: tuple[float, ...], expected: list[str]
) -> None:
    saes = shown_saes(CELLS, Report.model_validate(section), targets, artifacts)
    assert [sae.name for sae in saes] == expected
    assert [sae.id for sae in saes] == [name.replace("/", ".") for name in expected]


def test_correlations_are_those_of_dense_columns() -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((200, 12)) < 0.1, rng.random((200, 12)), 0).astype(np.float32)
    dense[:, 1] = dense[:, 0] * 2
    dense[:, 2] = 0
    reference = np.corrcoef(dense[:, [k for k in range(12) if k != 2]].T.astype(float))
    found = correlated(csc_array(dense))
    assert found[2] == []
    assert found[0][0] == (1, pytest.approx(1))
    others = [k for k in range(12) if k != 2]
    for row, k in enumerate(others):
        expected = sorted((r for j, r in enumerate(reference[row]) if j != row), reverse=True)
        expected = [r for r in expected[:3] if r > 0]
        assert [r for _, r in found[k]] == pytest.approx(expected)


def test_a_histogram_counts_every_value_between_its_edges() -> None:
    values = np.random.default_rng(1).exponential(size=500).astype(np.float32)
    made = histogram(values, 0.0, 20)
    assert made is not None
    counts, _ = np.histogram(values.astype(float), bins=made["edges"])
    assert made["counts"] == counts.tolist()
    assert histogram(values[:0], 0.0, 20) is None
    assert histogram(np.ones(3), None, 20) == {"edges": [1.0, 2.0], "counts": [3]}


def test_prose_keeps_strong_words_links_and_all_other_text() -> None:
    assert prose("a **b** [c](d.md) `e<f` *g*") == [
        Run("a "), Run("b", strong=True), Run(" "), Run("c", href="tables/d.md"), Run(" "),
        Run("e<f"), Run(" *g*"),
    ]  # fmt: skip
