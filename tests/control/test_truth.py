"""Recovery against known atoms: definitions on small cases, and SAELens's numbers on the same."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sae_repro.control.truth import (
    composed,
    decoder_projection,
    hedging,
    latents_per_circle,
    pairwise_cosine,
    recovery,
)
from sae_repro.control.worlds import cosines
from sae_repro.numerics.random import generator

PEERS = Path(__file__).resolve().parents[2] / ".venv-peers" / "bin" / "python"

THEIRS = """
import json, sys
import numpy as np, torch
from sae_lens.synthetic import evals
found = []
for path in sys.argv[1:]:
    t = {k: torch.from_numpy(v) for k, v in np.load(path).items()}
    c = evals.compute_classification_metrics(t["z"], t["a"], t["w"], t["atoms"])
    found.append({
        "mcc": evals.mean_correlation_coefficient(t["w"], t["atoms"]),
        "uniqueness": evals.feature_uniqueness(t["w"], t["atoms"]),
        "latent_precision": c.precision, "latent_recall": c.recall, "latent_f1": c.f1_score,
    })
print(json.dumps(found))
"""


def case(k: int, f: int, d: int, *, learnt: float) -> dict[str, np.ndarray]:
    """Tensors of an SAE that knows its atoms to a degree; some latents never fire."""
    rng = generator("truth", k, f, d)
    atoms = rng.standard_normal((f, d)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    a_nf = rng.random((500, f), dtype=np.float32) * (rng.random((500, f)) < 0.1)
    of = rng.permutation(max(k, f))[:k] % f
    sign = np.where(rng.random(k) < 0.2, -1, 1)[:, None]
    noise = rng.standard_normal((k, d)) / np.sqrt(d)
    w = (sign * (learnt * atoms[of] + (1 - learnt) * noise)).astype(np.float32)
    z_nk = np.where(rng.random((500, k)) < learnt, a_nf[:, of], rng.random((500, k)) < 0.05)
    z_nk[:, : k // 8] = 0
    return {"z": z_nk.astype(np.float32), "a": a_nf.astype(np.float32), "w": w, "atoms": atoms}


def test_mcc_f1_precision_recall_are_those_of_saelens_on_the_same_tensors(tmp_path: Path) -> None:
    if not PEERS.exists():
        pytest.skip(f"{PEERS} is absent: `make .venv-peers/.ready` installs SAELens there")
    cases = [case(k, f, d, learnt=p) for k, f, d, p in
             ((32, 32, 16, 0.8), (16, 48, 24, 0.6), (64, 24, 24, 0.95))]  # fmt: skip
    paths = []
    for i, tensors in enumerate(cases):
        paths.append(str(tmp_path / f"{i}.npz"))
        np.savez(paths[-1], **tensors)
    done = subprocess.run(
        [str(PEERS), "-c", THEIRS, *paths], capture_output=True, text=True, check=True,
        env={"HF_HUB_OFFLINE": "1", "PATH": ""}, cwd=tmp_path,
    )  # fmt: skip
    for tensors, theirs in zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True):
        ours = recovery(tensors["z"], tensors["a"], tensors["w"], tensors["atoms"])
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=1e-6), name


def test_an_sae_that_is_the_world_recovers_all_of_it() -> None:
    atoms = np.eye(6, dtype=np.float32)
    a_nf = (generator(0).random((200, 6)) < 0.3).astype(np.float32)
    found = recovery(a_nf, a_nf, atoms, atoms)
    perfect = {"mcc", "uniqueness", "latent_precision", "latent_recall", "latent_f1"}
    assert {name for name in perfect if found[name] == pytest.approx(1)} == perfect
    assert found["hedging"] == found["composed_fraction"] == 0
    assert found["true_l0"] == pytest.approx(a_nf.sum() / 200)


def test_a_latent_along_two_atoms_leans_and_is_composed_and_a_silent_one_does_not_count() -> None:
    atoms = np.eye(4, dtype=np.float32)
    w = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]], dtype=np.float32)
    cosine_kf = np.abs(cosines(w, atoms))
    alive = np.array([True, True, False])
    assert hedging(cosine_kf, atoms, alive) == pytest.approx(np.sqrt(0.5) / 2)
    assert composed(w, atoms, cosine_kf, alive) == 0.5
    assert np.isnan(hedging(cosine_kf, atoms, ~alive & False))
    assert pairwise_cosine(w, alive) == pytest.approx(0)


def test_hedging_is_not_charged_for_the_superposition_of_the_atoms() -> None:
    atoms = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    own = np.abs(cosines(atoms, atoms))
    assert hedging(own, atoms, np.ones(2, dtype=bool)) == pytest.approx(0, abs=1e-7)


def test_the_decoder_projection_is_the_value_of_its_rank() -> None:
    rng = generator(1)
    x_nd, w = rng.standard_normal((50, 5)), rng.standard_normal((16, 5))
    b = rng.standard_normal(5)
    values = np.sort(((x_nd - b) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T).ravel())[::-1]
    scale = np.sqrt(np.square(x_nd - b).sum(1).mean())
    assert decoder_projection(x_nd, w, b) == pytest.approx(values[2 * 50 - 1] / scale)
    assert decoder_projection(x_nd, 3 * w, b) == pytest.approx(decoder_projection(x_nd, w, b))


def test_latents_of_a_circle_are_those_in_its_plane() -> None:
    u, v = np.eye(4)[:1], np.eye(4)[1:2]
    w = np.array([[1, 1, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]], dtype=np.float32)
    assert latents_per_circle(w, (u, v), np.ones(4, dtype=bool)) == 2
