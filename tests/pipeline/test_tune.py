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
    """The finished small study, with a space to search."""
    checkout = finished.copy(tmp_path / "tuned")
    (checkout.folder / "tune").mkdir()
    (checkout.folder / "tune/dvc.yaml").write_text((ROOT / "tune/dvc.yaml").read_text())
    (checkout.folder / "tune/params.yaml").write_text(SPACE)
    return checkout


def test_adopted_cells_are_taken_from_the_store(checkout: Checkout) -> None:
    assert checkout.ran(checkout.repro()) == []  # a plain repro never starts a study
    assert checkout.ran(checkout.repro("tune/dvc.yaml")) == ["tune/dvc.yaml:tune"]
    assert checkout.ran(checkout.repro("tune/dvc.yaml")) == []
    assert (checkout.folder / "tune/figures/front.svg").is_file()
    before = checkout.trained(), checkout.evaluated()
    adopt = [str(Path(sys.executable).parent / "sae-repro"), "adopt", "--trial", "1"]
    subprocess.run(adopt, cwd=checkout.folder, env=checkout.environment(), check=True)
    assert checkout.ran(checkout.repro())[:2] == ["train", "evaluate"]
    [new] = [p.name for p in (checkout.folder / "artifacts/train").glob("tuned-*")]
    # taken from the store, evaluation too
    assert (checkout.trained(), checkout.evaluated()) == before
    tuned = pd.read_csv(checkout.folder / "tune/trials.csv").set_index("trial")
    cells = pd.read_csv(checkout.folder / "reports/tables/cells.csv").set_index("cell")
    for metric in ("l0", "fvu", "ce_sae"):
        assert cells.loc[new, metric] == tuned.loc[1, metric]
    # neither the grid nor its tables are inputs of the study
    assert checkout.ran(checkout.repro("tune/dvc.yaml")) == []
