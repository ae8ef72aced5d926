"""Saved transcoders: they act on raw activations, load again, and load in SAELens."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE, Weights, calibrated, finished, load, save, training_code
from sae_repro.autoencoders.interchange import export, import_sae
from sae_repro.errors import StudyError
from sae_repro.params import Cell
from sae_repro.params.axis_labels import ACTIVATION_LABELS

D, D_OUT, K = 12, 9, 24
SCALE, TARGET_SCALE = 0.37, 2.3
NAMES = [*itertools.product(ACTIVATION_LABELS, (False, True))]


def cell_of(activation: str, skip: bool) -> Cell:
    example = ACTIVATION_LABELS[activation].example
    return Cell(expansion=2, activation=activation, target_hook="out", skip=skip, **example)


def trained(cell: Cell) -> Weights:
    """Weights in the midst of training, on scaled and centred inputs."""
    g = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, K), "b_enc": (K,), "W_dec": (K, D_OUT), "b_dec": (D_OUT,)}
    if cell.skip:
        shapes["W_skip"] = (D_OUT, D)
    shapes |= dict.fromkeys(cell.activation_row.extra, (K,))
    w = Weights(**{name: torch.randn(shape, generator=g) for name, shape in shapes.items()})
    if w.threshold is not None:
        w.threshold.abs_()
    w.W_dec /= w.W_dec.norm(dim=1, keepdim=True)
    return w


def inputs() -> tuple[Tensor, Tensor]:
    """Raw activations [64, D], far from 0, and their centre."""
    x = 3 * torch.randn(64, D, generator=torch.Generator().manual_seed(1)) + 5
    return x, x.double().mean(0)


def whole(activation: str, skip: bool) -> SAE:
    cell, (x, centre) = cell_of(activation, skip), inputs()
    metadata = {"hook_name": "in", "hook_name_out": "out"}
    sae = finished(
        cell, trained(cell), scale=SCALE, target_scale=TARGET_SCALE, centre_d=centre,
        metadata=metadata,
    )  # fmt: skip
    return calibrated(sae, [x], 3, len(x)) if activation == "batchtopk" else sae


def prediction(sae: SAE, x: Tensor) -> Tensor:
    return sae.with_skip(sae.decode(sae.encode(x)), x)


@pytest.mark.parametrize(("activation", "skip"), [each for each in NAMES if each[0] != "batchtopk"])
def test_raw_activations_are_predicted_as_training_saw_them(activation: str, skip: bool) -> None:
    """BatchTopK apart: training selects in batches, inference has a threshold."""
    cell, (x, centre) = cell_of(activation, skip), inputs()
    w, sae = trained(cell), whole(activation, skip)
    seen = ((x.double() - centre) * SCALE).float()
    z = training_code(cell, w, seen, epsilon=1e-3).z_nk
    expected = z @ w.W_dec + w.b_dec
    if w.W_skip is not None:
        expected = expected + seen @ w.W_skip.T
    torch.testing.assert_close(prediction(sae, x), expected / TARGET_SCALE, rtol=1e-4, atol=1e-4)
    assert torch.equal(sae.encode(x) > 0, z > 0)
    torch.testing.assert_close(sae.weights.W_dec.norm(dim=1), torch.ones(K))


@pytest.mark.parametrize(("activation", "skip"), NAMES)
def test_a_saved_transcoder_loads_again(activation: str, skip: bool, tmp_path: Path) -> None:
    sae, x = whole(activation, skip), inputs()[0]
    save(sae, tmp_path)
    again = load(tmp_path)
    assert (again.d_in, again.d_out, again.d_sae, again.transcodes) == (D, D_OUT, K, True)
    assert torch.equal(prediction(again, x), prediction(sae, x))


@pytest.mark.parametrize(("activation", "skip"), NAMES)
def test_saelens_predicts_alike_or_the_export_is_refused(
    activation: str, skip: bool, tmp_path: Path
) -> None:
    sae, x = whole(activation, skip), inputs()[0]
    if not sae.in_saelens:
        assert activation in ("topk", "gated")
        with pytest.raises(StudyError, match=f"no architecture {activation}_"):
            export(sae, tmp_path / "theirs", "saelens")
        return
    sae_lens = pytest.importorskip("sae_lens")
    export(sae, tmp_path / "theirs", "saelens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "theirs")
    z = sae.encode(x)
    assert 0 < float((z > 0).double().mean()) < 1
    torch.testing.assert_close(theirs.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(x), prediction(sae, x), rtol=1e-5, atol=1e-4)
    assert theirs.cfg.metadata.hook_name_out == "out"
    assert theirs.cfg.d_out == D_OUT


@pytest.mark.parametrize("format", ["dictionary_learning", "sparsify"])
def test_other_formats_hold_no_transcoder(format: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no transcoder"):
        export(whole("topk", skip=False), tmp_path / "theirs", format)


def test_a_transcoders_folder_is_no_sae_to_import(tmp_path: Path) -> None:
    save(whole("relu", skip=False), tmp_path)
    with pytest.raises(StudyError, match="a transcoder"):
        import_sae(tmp_path)


def test_a_folder_without_the_target_width_is_named(tmp_path: Path) -> None:
    save(whole("relu", skip=True), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["d_out"]
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(StudyError, match="has no 'd_out'"):
        load(tmp_path)


def test_a_matrix_of_another_shape_is_named(tmp_path: Path) -> None:
    sae = whole("relu", skip=True)
    assert sae.weights.W_skip is not None
    save(replace(sae, weights=replace(sae.weights, W_skip=sae.weights.W_skip.T)), tmp_path)
    with pytest.raises(StudyError, match=r"cfg\.json wants"):
        load(tmp_path)
