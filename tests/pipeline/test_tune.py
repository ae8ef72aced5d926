"""The tuning study beside the pipeline: never started by it, adopted into it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from .conftest import ROOT, Checkout

pytestmark = pytest.mark.slow

SPACE = """\
tune:
  trials: 4
  batch: 2
  all: {expansion: {values: [2, 4]}, target_l0: {low: 2, high: 8}}
  recipes:
    vanilla: {penalty: l1, lambda: 1e-2}
    topk: {activation: topk}
"""


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """The small study with tuning documents, finished, and with a space to search."""
    checkout = finished.copy(tmp_path / "tuned")
    checkout.change("  calibration: 0.1\n", "  calibration: 0.1\n  tuning: 0.1\n")
    checkout.repro()
    (checkout.folder / "tune").mkdir()
    (checkout.folder / "tune/dvc.yaml").write_text((ROOT / "tune/dvc.yaml").read_text())
    (checkout.folder / "tune/params.yaml").write_text(SPACE)
    return checkout


def test_adopted_cells_are_taken_from_the_store(checkout: Checkout) -> None:
    assert checkout.ran(checkout.repro()) == []  # a plain repro never starts a study
    assert checkout.ran(checkout.repro("tune/dvc.yaml")) == ["tune/dvc.yaml:tune"]
    assert checkout.ran(checkout.repro("tune/dvc.yaml")) == []
    assert (checkout.folder / "tune/figures/front.svg").is_file()
    before = checkout.trained()
    adopt = [str(Path(sys.executable).parent / "sae-repro"), "adopt", "--trial", "1"]
    subprocess.run(adopt, cwd=checkout.folder, env=checkout.environment(), check=True)
    assert checkout.ran(checkout.repro())[:2] == ["train", "evaluate"]
    [new] = [p.name for p in (checkout.folder / "artifacts/train").glob("tuned-*")]
    assert checkout.trained() == before  # taken from the store
    tuned = pd.read_csv(checkout.folder / "tune/trials.csv").set_index("trial")
    cells = pd.read_csv(checkout.folder / "reports/tables/cells.csv").set_index("cell")
    # on other documents: near, and not the same
    assert cells.loc[new, "fvu"] == pytest.approx(tuned.loc[1, "fvu"], rel=0.2)
    assert cells.loc[new, "fvu"] != tuned.loc[1, "fvu"]
    # neither the grid nor its tables are inputs of the study
    assert checkout.ran(checkout.repro("tune/dvc.yaml")) == []
