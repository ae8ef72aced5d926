"""Activations of a world held in memory, against what their rows say."""

from pathlib import Path

import numpy as np
import pytest

from sae_repro.control.held import CHUNK, HOOK, HeldStore, norms
from sae_repro.params import Cell, Train
from sae_repro.training import Trainer


@pytest.mark.parametrize("n", [1, 1000, CHUNK, 2 * CHUNK + 7])
def test_its_facts_are_those_of_its_rows(n: int) -> None:
    x_nd = np.random.default_rng(n).standard_normal((n, 9), dtype=np.float32)
    store = HeldStore(x_nd, x_nd[:1])
    square_n = np.square(x_nd.astype(np.float64)).sum(1)
    assert norms(x_nd).tolist() == np.sqrt(square_n).tolist()
    assert store.d_in(HOOK) == 9
    assert store.rms(HOOK) == pytest.approx(np.sqrt(square_n.mean()))
    assert store.median_norm(HOOK) == np.median(np.sqrt(square_n))
    for split, rows in (("train", x_nd), ("calibration", x_nd[:1])):
        shards = store.activations(HOOK, split)
        assert shards.rows == len(rows)
        assert np.array_equal(shards.whole(), rows)


def test_training_leaves_its_rows_as_they_are(tmp_path: Path) -> None:
    x_nd = np.random.default_rng(0).standard_normal((200, 6), dtype=np.float32)
    before = x_nd.copy()
    store = HeldStore(x_nd, x_nd)
    with pytest.raises(ValueError, match="read-only"):
        store.activations(HOOK, "train").load(0)[0] = 0
    cell = Cell(expansion=2, activation="batchtopk", k=2, normalisation="none")
    settings = Train(batch_size=50, epochs=2)
    Trainer(cell, settings, store, HOOK, seed=0, checkpoint=tmp_path / "none").run()
    assert np.array_equal(x_nd, before)
