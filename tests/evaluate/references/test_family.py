"""The family of small references: trained once, the same for all, kept by what it follows from."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_repro import training
from sae_repro.evaluate.metrics.references import family as module
from sae_repro.evaluate.metrics.references.family import Family, references
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Diverged, Journal, Trainer

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture
def family(tmp_path: Path, make_store: Callable[..., Path]) -> Family:
    return Family(tmp_path / "cells", make_store(train=60_000), 0, "code", "cpu", 1)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths that were really trained, in order."""
    seen: list[int] = []

    class Counted(Trainer):
        def run(self, *arguments: object) -> object:
            seen.append(self.weights.d_sae)
            return super().run(*arguments)

    monkeypatch.setattr(training, "Trainer", Counted)
    return seen


def test_wider_references_reconstruct_better(family: Family) -> None:
    small = references(family, HOOK, (6, 24))
    assert [small[w].d_sae for w in (6, 24)] == [6, 24]
    store = ActivationStore(family.activations)
    x = torch.from_numpy(np.array(store.activations(HOOK, "validation").load(0)))
    fvu = {}
    for width, sae in small.items():
        z = sae.encode(x)
        assert int((z > 0).sum(1).max()) <= module.K
        fvu[width] = float((x - sae.decode(z)).square().sum() / (x - x.mean(0)).square().sum())
    assert fvu[24] < fvu[6] < 0.8


def test_references_are_trained_once_for_all_evaluations(
    family: Family, trained: list[int]
) -> None:
    small: list[dict] = []
    asking = [
        threading.Thread(target=lambda: small.append(references(family, HOOK, (6,))))
        for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert trained == [6]
    assert len({small[i][6].weights.W_dec.numpy().tobytes() for i in range(3)}) == 1


def test_changed_inputs_train_the_references_anew(
    family: Family, trained: list[int], make_store: Callable[..., Path]
) -> None:
    references(family, HOOK, (6,))
    references(family, HOOK, (6,))
    assert len(trained) == 1
    others = [
        replace(family, seed=1),
        replace(family, code="other"),
        replace(family, activations=make_store(train=59_000, name="other")),
    ]
    for other in others:
        references(other, HOOK, (6,))
    assert len(trained) == 4


def test_the_same_bits_from_an_empty_store(family: Family, tmp_path: Path) -> None:
    one = references(family, HOOK, (6,))[6]
    two = references(replace(family, store=tmp_path / "elsewhere"), HOOK, (6,))[6]
    for name, tensor in one.weights.named().items():
        assert torch.equal(tensor, two.weights.named()[name]), name


def test_diverged_reference_is_none(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Trainer):
        def run(self, *arguments: object) -> object:
            raise Diverged("the loss is not finite", Journal())

    monkeypatch.setattr(training, "Trainer", Failing)
    assert references(family, HOOK, (6, 8)) == {6: None, 8: None}
    monkeypatch.undo()
    assert references(family, HOOK, (6,)) == {6: None}  # it is a result too, and kept
