"""Every value of the axes has its formula, and a new activation is right from training to judge."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sae_repro.autoencoders import LATENT_AXIS, SAE, Weights, load, save
from sae_repro.autoencoders.activations import INFERENCE, TRAINING, Code, pre_activations
from sae_repro.autoencoders.interchange import FORMATS, export
from sae_repro.autoencoders.interchange.layouts import SAELENS
from sae_repro.autoencoders.penalties import PHI
from sae_repro.autoencoders.prefixes import LENGTHS
from sae_repro.autoencoders.saved import STORED
from sae_repro.errors import StudyError
from sae_repro.evaluate.codes import code_of
from sae_repro.judge.latent_activations import activations, restricted
from sae_repro.params import Cell, Train
from sae_repro.params.axes import (
    ACTIVATIONS,
    ARCHITECTURES,
    PENALTIES,
    PREFIXES,
    Activation,
    Architecture,
    readers,
)
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Trainer

HOOK = "blocks.0.hook_resid_post"


def test_formulas_and_rows_have_the_same_names() -> None:
    assert set(TRAINING) == set(ACTIVATIONS)
    assert set(INFERENCE) == set(ARCHITECTURES)
    assert set(PHI) == set(PENALTIES) - {"none"}
    assert set(LENGTHS) == set(PREFIXES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tensors_of_an_architecture_are_trained_sorted_and_exchanged(name: str) -> None:
    row = ARCHITECTURES[name]
    assert set(row.extra) <= {field.name for field in fields(Weights)}
    assert set(row.extra) <= set(LATENT_AXIS)
    assert (name in SAELENS) == row.in_saelens
    if row.in_saelens:
        assert set(SAELENS[name].names) == {"W_enc", "b_enc", "W_dec", "b_dec", *row.extra}


def example(architecture: str) -> SAE:
    g = torch.Generator().manual_seed(0)
    row = ARCHITECTURES[architecture]
    w_dec = torch.nn.functional.normalize(torch.randn(40, 6, generator=g), dim=1)
    extra = {name: torch.rand(40, generator=g) / 9 for name in row.extra}
    weights = Weights(w_dec.T.clone(), torch.randn(40, generator=g), w_dec, torch.zeros(6), **extra)
    return SAE(architecture, weights, k=4 if row.reads_k else None)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_row_tells_whether_a_latent_can_be_encoded_alone(name: str) -> None:
    sae = example(name)
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    alone = restricted(replace(sae, k=min(sae.k, 3) if sae.k else None), torch.tensor([3, 0, 39]))
    together = sae.encode(x)[:, [3, 0, 39]]
    assert (not torch.allclose(alone.encode(x), together, atol=1e-6)) == sae.latents_compete


# an activation that nobody knows: of the k largest |u| of a token, those above 0 fire
NEW = "topk-abs"


class NewCell(Cell):
    """A cell whose schema knows the new activation; a row in the source needs no such class."""

    activation: str = NEW


def largest(u_nk: Tensor, k: int) -> Tensor:
    mask = torch.zeros_like(u_nk).scatter_(1, u_nk.abs().topk(k, dim=1).indices, 1.0)
    return torch.relu(u_nk) * mask


def training(cell: Cell, weights: Weights, x_nd: Tensor, epsilon: float) -> Code:
    u_nk = pre_activations(weights, x_nd, apply_b_dec_to_input=cell.apply_b_dec_to_input)
    return Code(u_nk, largest(u_nk, cell.k or 0))


def inference(weights: Weights, x_nd: Tensor, apply: bool, k: int | None) -> Tensor:
    return largest(pre_activations(weights, x_nd, apply_b_dec_to_input=apply), k or 0)


@pytest.fixture
def new_activation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    row = Activation(
        NEW, description="the k largest |u|", architecture=NEW, l0_set_by="k", reads=("k",)
    )
    architecture = Architecture(NEW, NEW, reads_k=True, latents_compete=True, in_saelens=False)
    monkeypatch.setitem(ACTIVATIONS, NEW, row)
    monkeypatch.setitem(ARCHITECTURES, NEW, architecture)
    monkeypatch.setitem(STORED, NEW, (architecture, False, False))
    monkeypatch.setitem(TRAINING, NEW, training)
    monkeypatch.setitem(INFERENCE, NEW, inference)
    readers.cache_clear()
    yield
    monkeypatch.undo()
    readers.cache_clear()


@pytest.mark.usefixtures("new_activation")
def test_a_new_competing_activation_is_right_from_training_to_the_judge(
    make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """Encoded without its rivals, a latent fires more often than it does: 90 times for 41 once."""
    with pytest.raises(ValueError, match=f"activation {NEW} needs k"):
        NewCell(expansion=4)
    cell, store = NewCell(expansion=4, k=3), ActivationStore(make_store())
    trained = Trainer(cell, Train(batch_size=64), store, HOOK, seed=0, checkpoint=tmp_path / "c")
    (tmp_path / "sae").mkdir()
    save(trained.run().sae, tmp_path / "sae")
    sae = load(tmp_path / "sae")
    assert (sae.architecture, sae.k, sae.latents_compete) == (NEW, 3, True)
    for format in FORMATS:
        with pytest.raises(StudyError, match=f"format {format}"):
            export(sae, tmp_path / "export", format)

    x = torch.from_numpy(np.concatenate(list(store.activations(HOOK, "validation").batches(999))))
    code = code_of(sae.encode(x), np.zeros((len(x), 3), dtype=np.int32))
    firings_k = np.bincount(code.latent, minlength=sae.d_sae)
    latents = np.argsort(-firings_k)[:5].tolist()
    judged = activations(sae, x.split(100), latents).toarray()
    assert (judged > 0).sum(0).tolist() == firings_k[latents].tolist()
    alone = restricted(sae, torch.tensor(latents)).encode(x)
    assert int((alone > 0).sum()) > firings_k[latents].sum(), "the test can tell the difference"
