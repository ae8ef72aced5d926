"""The registry's metrics on a world: by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from sae_repro.control.scores import scores
from sae_repro.metrics import CONTROLS

N, F = 400, 5


@pytest.fixture
def on() -> np.ndarray:
    return np.random.default_rng(0).random((N, F)) < 0.3


def test_latents_that_are_the_atoms_are_perfect(on: np.ndarray) -> None:
    found = scores(on.astype(np.float32), on, np.eye(F, dtype=np.float32))
    assert found == {
        "dead_fraction_never": 0.0, "decoder_max_cosine": 0.0, "decoder_near_copy_fraction": 0.0,
        "coverage": 1.0, "recall_at_p80_mean": 1.0, "monosemantic_fraction": 1.0,
        "monosemantic_fraction_alive": 1.0, "monosemantic_mean": pytest.approx(1.0),
        "probe_auc_1": 1.0,
    }  # fmt: skip


def test_latents_that_ignore_the_atoms_find_nothing(on: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    z = np.maximum(rng.standard_normal((N, 8)), 0).astype(np.float32)
    z[:, 0] = 0
    w = rng.standard_normal((8, 16)).astype(np.float32)
    w[7] = w[6]
    found = scores(z, on, w)
    assert found["dead_fraction_never"] == pytest.approx(1 / 8)
    assert found["decoder_near_copy_fraction"] == pytest.approx(2 / 7)
    assert found["coverage"] == found["recall_at_p80_mean"] == 0
    assert found["monosemantic_fraction_alive"] == 0
    assert found["monosemantic_mean"] < 0.2
    assert abs(found["probe_auc_1"] - 0.5) < 0.1


def test_mass_on_two_atoms_is_half_monosemantic_and_dead_latents_count(on: np.ndarray) -> None:
    """By hand: a latent of atoms 0 and 1 has (P − π) / (1 − π) of its mass on the larger."""
    two = on[:, 0] | on[:, 1]
    z = np.stack([2.0 * on[:, 2], two.astype(float), np.zeros(N)], axis=1).astype(np.float32)
    found = scores(z, on, np.eye(3, dtype=np.float32))
    assert found["monosemantic_fraction_alive"] == 0.5
    assert found["monosemantic_fraction"] == pytest.approx(1 / 3)
    fit, test = two[: N // 2], two[N // 2 :]
    m = []
    for rows, fires in ((slice(None, N // 2), fit), (slice(N // 2, None), test)):
        base = on[rows, :2].mean(0)
        m.append((on[rows, :2][fires].mean(0) - base) / (1 - base))
    expected = (1 + m[1][m[0].argmax()]) / 2
    assert found["monosemantic_mean"] == pytest.approx(expected, rel=1e-5)


def test_agreement_and_auc_are_scikit_learns() -> None:
    """One atom and two noisy latents, chosen on the first half and scored on the second."""
    rng = np.random.default_rng(2)
    on = rng.random((N, 1)) < 0.4
    z = np.maximum(on * 0.7 + 0.5 * rng.standard_normal((N, 2)), 0).astype(np.float32)
    fit, test = slice(None, N // 2), slice(N // 2, None)
    phis = [[matthews_corrcoef(on[h, 0], z[h, k] > 0) for k in (0, 1)] for h in (fit, test)]
    aucs = [[roc_auc_score(on[h, 0], z[h, k]) for k in (0, 1)] for h in (fit, test)]
    found = scores(z, on, np.eye(2, dtype=np.float32))
    assert found["probe_auc_1"] == pytest.approx(aucs[1][int(np.argmax(aucs[0]))])
    assert found["coverage"] == (phis[1][int(np.argmax(phis[0]))] >= 0.5)


def test_without_latents_that_fire_there_is_little_to_say(on: np.ndarray) -> None:
    found = scores(np.zeros((N, 4), dtype=np.float32), on, np.eye(4, dtype=np.float32))
    assert found == {"dead_fraction_never": 1.0}


def test_each_has_a_row_of_its_own(on: np.ndarray) -> None:
    found = scores(on.astype(np.float32), on, np.eye(F, dtype=np.float32))
    assert set(found) <= {metric.name for metric in CONTROLS}
