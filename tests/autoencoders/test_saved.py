"""Saved SAEs: they act on raw activations, load again, and load in SAELens."""

import json
from pathlib import Path

import pytest
import torch

from sae_repro.autoencoders import (
    SAE,
    Weights,
    calibrated,
    finished,
    load,
    save,
    training_code,
)
from sae_repro.errors import StudyError
from sae_repro.params import Cell
from sae_repro.params.axes import ARCHITECTURES
from sae_repro.params.axis_labels import ACTIVATION_LABELS

CELLS = {
    "standard": Cell(expansion=2, penalty="l1", lambda_=1.0),
    "free": Cell(expansion=2, penalty="l1_decoder_norm", lambda_=1.0, decoder="free"),
    "topk": Cell(expansion=2, activation="topk", k=4),
    "batchtopk": Cell(expansion=2, activation="batchtopk", k=4),
    "plain_input": Cell(expansion=2, penalty="l1", lambda_=1.0, apply_b_dec_to_input=False),
    "matryoshka": Cell(expansion=2, activation="batchtopk", k=4, prefixes="random"),
    "jumprelu": Cell(expansion=2, activation="jumprelu", penalty="l0", lambda_=1.0),
    "jumprelu-free": Cell(
        expansion=2, activation="jumprelu", penalty="tanh", lambda_=1.0, decoder="free"
    ),
    "gated": Cell(expansion=2, activation="gated", penalty="l1", lambda_=1.0),
    "gated-free": Cell(
        expansion=2, activation="gated", penalty="log", lambda_=1.0, decoder="free",
        apply_b_dec_to_input=False,
    ),
}  # fmt: skip
CELLS |= {
    name: Cell(expansion=2, activation=name, **row.example)
    for name, row in ACTIVATION_LABELS.items()
    if name not in {cell.activation for cell in CELLS.values()}
}
D, K = 12, 24


def trained(cell: Cell, seed: int = 0) -> Weights:
    g = torch.Generator().manual_seed(seed)
    w = Weights(*(torch.randn(s, generator=g) for s in ((D, K), (K,), (K, D), (D,))))
    if cell.decoder == "unit_norm":
        w.W_dec /= w.W_dec.norm(dim=1, keepdim=True)
    for name in cell.activation_row.extra:
        positive = name == "threshold"
        value = torch.rand(K, generator=g) if positive else torch.randn(K, generator=g)
        setattr(w, name, 0.3 * value if name == "r_mag" else value)
    return w


def activations(n: int = 64, seed: int = 1) -> torch.Tensor:
    return 3.0 * torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def whole(name: str, scale: float = 1.0) -> SAE:
    cell = CELLS[name]
    sae = finished(cell, trained(cell), scale=scale, metadata={"hook_name": "h"})
    if cell.activation_row.threshold == "calibrated":
        sae = calibrated(sae, [activations(500, 2)], cell.k, 500)
    return sae


@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("name", CELLS)
def test_folding_keeps_what_the_trained_weights_do(name: str, scale: float) -> None:
    """x̂ of the folded SAE on raw x is x̂ of the trained weights on s·x, divided by s."""
    cell, w, x = CELLS[name], trained(CELLS[name]), activations()
    sae = whole(name, scale)
    u, z = training_code(cell, w, x * scale, epsilon=0.1)
    if cell.activation_row.threshold == "calibrated":
        z = torch.where(u > sae.weights.threshold * scale, torch.relu(u), 0.0)
    x_hat = (z @ w.W_dec + w.b_dec) / scale
    torch.testing.assert_close(sae.decode(sae.encode(x)), x_hat, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.encode(x) > 0, z > 0)
    torch.testing.assert_close(sae.weights.W_dec.norm(dim=1), torch.ones(K))


@pytest.mark.parametrize("name", CELLS)
def test_saved_and_loaded_are_one(name: str, tmp_path: Path) -> None:
    sae = whole(name)
    save(sae, tmp_path)
    again, x = load(tmp_path), activations()
    assert torch.equal(again.encode(x), sae.encode(x))
    assert torch.equal(again.decode(again.encode(x)), sae.decode(sae.encode(x)))


IN_SAELENS = [
    name
    for name, cell in CELLS.items()
    if ARCHITECTURES[cell.activation_row.architecture].in_saelens
]


@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("name", IN_SAELENS)
def test_saelens_encodes_and_decodes_alike(name: str, scale: float, tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    sae, x = whole(name, scale), activations()
    save(sae, tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    z = sae.encode(x)
    assert 0 < float((z > 0).double().mean()) < 1
    torch.testing.assert_close(theirs.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.decode(z), sae.decode(z), rtol=1e-5, atol=1e-5)


def test_zero_rows_are_left_alone() -> None:
    cell = CELLS["free"]
    w = trained(cell)
    w.W_dec[3] = 0.0
    sae = finished(cell, w)
    assert not sae.weights.W_dec[3].any()
    assert torch.isfinite(sae.weights.W_enc).all()


def test_an_architecture_that_is_unknown_is_named(tmp_path: Path) -> None:
    save(whole("standard"), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"architecture": "crosscoder"}))
    with pytest.raises(StudyError, match=r"architecture = crosscoder: unknown here; known are st"):
        load(tmp_path)


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path: Path) -> None:
    save(whole("standard"), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"d_sae": 7}))
    with pytest.raises(StudyError, match=r"cfg\.json wants"):
        load(tmp_path)
