"""The registry of metrics against what a whole study wrote."""

import json

from sae_repro.metrics import METRICS, find
from sae_repro.metrics.metric import FRACTION

from .conftest import Checkout


def test_every_metric_of_a_study_has_a_row_and_its_denominator(finished: Checkout) -> None:
    written = set()
    for path in (finished.folder / "artifacts/evaluate").glob("*/metrics.json"):
        measured = json.loads(path.read_text())
        for name, value in measured["metrics"].items():
            row = find(name)
            assert row is not None, name
            written.add(row.name)
            count = row.denominator_of(name)
            assert count is None or count in measured["counts"], name
            assert row.unit != FRACTION or value is None or 0 <= value <= 1, name
            assert name not in measured["intervals"] or row.interval != "none", name
    # cells of one seed have no consistency: tests/evaluate/consistency
    assert written == {metric.name for metric in METRICS if metric.choice != "consistency"}
