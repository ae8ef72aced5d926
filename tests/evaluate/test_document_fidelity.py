"""Fidelity by validation document: aligned with all of them, baselines measured once per hook."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights
from sae_repro.evaluate import document_fidelity
from sae_repro.evaluate.document_fidelity import fidelity_columns
from sae_repro.evaluate.fidelity import Spliced
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.ratios import FIDELITY, FIDELITY_UNSEEN, values
from sae_repro.files import read_json, write_json
from sae_repro.params import Evaluate
from sae_repro.readers.shards import ActivationStore

HOOK = "blocks.0.hook_resid_post"
D = 8
LOSS = {"ce_clean": 1.0, "ce_sae": 2.0, "kl_sae": 0.5, "ce_zero": 5.0, "kl_zero": 3.0,
        "ce_mean": 4.0, "kl_mean": 2.0}  # fmt: skip


@pytest.fixture
def study(tmp_path: Path, make_store: Callable[..., Path]) -> Evaluation:
    return Evaluation(
        settings=Evaluate(), seed=0, inputs="inputs", trainer="", store=tmp_path / "cells",
        corpus=tmp_path, subject=tmp_path, activations=make_store(d_in=D),
    )  # fmt: skip


@pytest.fixture
def spliced(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """A language model of constant losses on documents 3, 5 and 8; which conditions it was run in.

    Document 5 has no target. Half of the others' are unseen, where every loss is twice as large.
    """
    calls: list[set[str]] = []

    def fidelity(untouched: Any, replacements: dict[str, Any]) -> Spliced:
        calls.append(set(replacements))
        targets = np.array([10, 0, 4])
        names = ["ce_clean", *(f"{loss}_{name}" for name in replacements for loss in ("ce", "kl"))]
        sums = {name: LOSS[name] * targets for name in names}
        sums |= {f"unseen_{name}": 2 * LOSS[name] * targets // 2 for name in names}
        return Spliced(np.array([3, 5, 8]), targets, targets // 2, sums)

    monkeypatch.setattr(document_fidelity, "fidelity", fidelity)
    monkeypatch.setattr(document_fidelity, "_untouched", lambda *_: None)
    return calls


def identity() -> SAE:
    return SAE("standard", Weights(torch.eye(D), torch.zeros(D), torch.eye(D), torch.zeros(D)))


def columns(study: Evaluation, hook: str = HOOK) -> dict[str, np.ndarray]:
    document = np.array([1, 3, 8, 9])
    return fidelity_columns(study, identity(), ActivationStore(study.activations), hook, document)


def test_losses_stand_at_their_documents_and_nowhere_else(
    study: Evaluation, spliced: list[set[str]]
) -> None:
    measured = columns(study)
    assert measured["targets"].tolist() == [0, 10, 4, 0]
    assert measured["ce_sae_sum"].tolist() == [0, 20, 8, 0]
    assert measured["kl_sum"].tolist() == [0, 5, 2, 0]
    assert measured["unseen_targets"].tolist() == [0, 5, 2, 0]
    assert values(FIDELITY_UNSEEN, measured) == {
        "ce_recovered_zero_unseen": 3 / 4, "kl_unseen": 1,
    }  # fmt: skip
    assert values(FIDELITY, measured) == {
        "ce_clean": 1, "ce_sae": 2, "ce_zero": 5, "ce_mean": 4, "kl": 0.5,
        "ce_recovered_zero": 3 / 4, "ce_recovered_mean": 2 / 3,
    }  # fmt: skip


def test_the_baselines_of_a_hook_are_measured_once_for_all_its_saes(
    study: Evaluation, spliced: list[set[str]]
) -> None:
    first, second = columns(study), columns(study)
    assert sorted(map(sorted, spliced)) == [["mean", "zero"], ["sae"], ["sae"]]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def nothing_measured(measured: dict[str, np.ndarray]) -> bool:
    return all(len(column) == 4 and not column.any() for column in measured.values())


def test_random_weights_have_no_cross_entropy_to_recover(study: Evaluation) -> None:
    """Without a subject in the folder: nothing is even loaded."""
    measured = columns(study, f"untrained/{HOOK}")
    assert nothing_measured(measured)
    assert values(FIDELITY, measured) == dict.fromkeys(FIDELITY)
    assert values(FIDELITY_UNSEEN, measured) == dict.fromkeys(FIDELITY_UNSEEN)


def test_whole_documents_have_no_next_token(study: Evaluation) -> None:
    path = study.activations / "manifest.json"
    write_json(path, {**read_json(path), "pooling": "document_mean"})
    assert nothing_measured(columns(study))
