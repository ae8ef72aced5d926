"""Consistency of seeds: copies agree, chance is at its null, and only what changed is compared."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sae_repro.autoencoders import LATENT_AXIS, SAE, Weights, save
from sae_repro.autoencoders.partners import Directions
from sae_repro.cellstore import CellStore
from sae_repro.contents import check, seal
from sae_repro.evaluate.consistency import FOLDER, ConsistencyJob, deliver, job_of, with_consistency
from sae_repro.evaluate.consistency.activations import Activations
from sae_repro.evaluate.consistency.measure import CURVE, NAMES, measure
from sae_repro.evaluate.held_out import Batch, validation_batches
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.files import read_json, write_json
from sae_repro.numerics.pairs import further
from sae_repro.params import Evaluate
from sae_repro.readers.shards import ActivationStore

HOOK = "blocks.0.hook_resid_post"
D, K, TOKENS = 8, 24, 1024


def sae_of(seed: int, order: np.ndarray | None = None) -> SAE:
    """A random SAE, tied, its latents in another order."""
    rows = torch.from_numpy(np.random.default_rng(seed).standard_normal((K, D))).float()
    rows = (rows / rows.norm(dim=1, keepdim=True))[np.arange(K) if order is None else order]
    return SAE("standard", Weights(rows.T.contiguous(), torch.zeros(K), rows, torch.zeros(D)))


@pytest.fixture
def compare(make_store: Callable[..., Path]) -> Callable[..., dict[str, float | None]]:
    """Compares SAEs on a store's held-out activations."""
    store = ActivationStore(make_store(validation=TOKENS, d_in=D))

    def go(*saes: SAE, batch_size: int = 100) -> dict[str, float | None]:
        def batches() -> Iterator[Batch]:
            return validation_batches(store, HOOK, batch_size, "cpu")

        members = {f"seed-{n}": Directions.of(s.weights, np.arange(K)) for n, s in enumerate(saes)}
        latents = [np.arange(K)] * len(saes)
        found = measure(members, Activations(saes, latents, batches, TOKENS, 0), 0)
        assert found.summary.counts["consistency_tokens"] == TOKENS
        return found.summary.metrics

    return go


def test_a_seed_against_itself_and_a_permuted_copy_agree_whole(
    compare: Callable[..., dict[str, float | None]],
) -> None:
    order = np.random.default_rng(9).permutation(K)
    for copy in (sae_of(0), sae_of(0, order)):
        found = compare(sae_of(0), copy)
        assert [found[name] for name in NAMES] == pytest.approx([1.0] * len(NAMES))


def test_another_seed_agrees_less_than_a_copy_and_documents_matter(
    compare: Callable[..., dict[str, float | None]],
) -> None:
    found = compare(sae_of(0), sae_of(1), sae_of(2))
    assert found["pw_mcc"] < 0.95 and found["activation_mcc"] < 0.95
    # latents that point alike fire alike: on other documents they do not
    assert found["activation_mcc"] > found["activation_mcc_null"] + 0.2


def test_the_batch_size_changes_nothing_but_rounding(
    compare: Callable[..., dict[str, float | None]],
) -> None:
    a, b = (compare(sae_of(0), sae_of(1), batch_size=size) for size in (7, 1000))
    assert a == pytest.approx(b, rel=1e-6)


def random_members(k: int, d: int, seeds: int, start: int) -> Mapping[str, Directions]:
    rng = np.random.default_rng(start)
    members = {}
    for seed in range(seeds):
        rows = rng.standard_normal((k, d))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        members[f"seed-{seed}"] = Directions(np.arange(k), rows, rows)
    return members


def test_random_directions_lie_in_the_nulls_interval() -> None:
    """At D 64, K 512 the null is .378: the number that PW-MCC of a study must be read against."""
    summary = measure(random_members(512, 64, 3, start=5), None, 0).summary
    low, high = summary.intervals["pw_mcc_null"]
    assert low <= summary.metrics["pw_mcc"] <= high
    assert summary.metrics["pw_mcc_null"] == pytest.approx(0.378, abs=0.002)
    assert summary.metrics["shared_fraction"] == summary.metrics["shared_fraction_null"] == 0
    assert summary.metrics["activation_mcc"] is None


def test_random_directions_leave_their_interval_as_often_as_it_says() -> None:
    inside = 0
    for start in range(100):
        summary = measure(random_members(12, 8, 2, start), None, start).summary
        low, high = summary.intervals["pw_mcc_null"]
        inside += low <= summary.metrics["pw_mcc"] <= high
    assert inside >= 88


def test_two_seeds_have_no_interval_and_one_has_no_value() -> None:
    summary = measure(random_members(12, 8, 2, start=0), None, 0).summary
    assert summary.counts["consistency_pairs"] == 1
    assert not set(NAMES) & set(summary.intervals)
    found = measure(random_members(12, 8, 1, start=0), None, 0)
    assert set(found.summary.metrics.values()) == {None}
    assert np.isnan(found.stability["seed-0"]).all()
    assert np.isnan(further([])[0])


def test_latents_without_a_partner_count_in_the_second_number_only() -> None:
    rows = random_members(12, 8, 1, start=3)["seed-0"]
    part = Directions(np.arange(6), rows.encoder_kd[:6], rows.decoder_kd[:6])
    found = measure({"seed-0": rows, "seed-1": part}, None, 0)
    assert found.summary.metrics["pw_mcc"] == pytest.approx(1.0)
    assert found.summary.metrics["pw_mcc_all"] == pytest.approx(0.5)
    assert found.stability["seed-0"] == pytest.approx([1.0] * 6 + [0.0] * 6)


def test_the_curve_falls_and_has_the_shared_fraction_on_it() -> None:
    rng = np.random.default_rng(0)
    first = random_members(40, 16, 1, start=0)["seed-0"]
    rows = first.decoder_kd + rng.uniform(0, 0.5, (40, 1)) * rng.standard_normal((40, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = measure({"seed-0": first, "seed-1": Directions(first.latent, rows, rows)}, None, 0)
    shared = found.curve["shared_fraction"].to_numpy()
    assert found.curve["threshold"].tolist() == list(CURVE)
    assert (np.diff(shared) <= 0).all() and shared[0] > shared[-1]
    assert found.summary.metrics["shared_fraction"] == shared[CURVE.index(0.7)]


# --- the pass over the cells of a study


@pytest.fixture
def study(make_store: Callable[..., Path], tmp_path: Path) -> Evaluation:
    return Evaluation(
        settings=Evaluate(), seed=0, inputs="", trainer="", store=tmp_path / "store",
        corpus=tmp_path, subject=tmp_path, activations=make_store(validation=TOKENS, d_in=D),
    )  # fmt: skip


DEAD = 3


def write_cell(folder: Path, name: str, seeds: list[int], *, failed: int | None = None) -> None:
    """What `train` and `evaluate` leave of a cell: its last three latents never fire."""
    for place, seed in enumerate(seeds):
        trained, evaluated = (folder / s / name / f"seed-{place}" for s in ("train", "evaluate"))
        trained.mkdir(parents=True)
        evaluated.mkdir(parents=True)
        save(sae_of(seed), trained)
        status = "failed" if place == failed else "ok"
        write_json(evaluated / "metrics.json", {"status": status, "hook": HOOK, "key": f"{seed}"})
        if status == "ok":
            fired = np.where(np.arange(K) < K - DEAD, 9, 0)
            frame = pd.DataFrame({"latent": np.arange(K, dtype=np.int32), "n_fired": fired})
            frame.to_parquet(evaluated / "latents.parquet", index=False)
        seal(evaluated)


def jobs_of(
    study: Evaluation, folder: Path, cells: Mapping[str, list[int]]
) -> Mapping[str, ConsistencyJob]:
    return {
        name: job_of(
            name, study, "code",
            {f"seed-{n}": (folder / "train" / name / f"seed-{n}",
                           folder / "evaluate" / name / f"seed-{n}") for n in range(len(seeds))},
            {f"seed-{n}": str(seed) for n, seed in enumerate(seeds)},
        )
        for name, seeds in cells.items()
    }  # fmt: skip


def whole_of(seeds: int) -> dict:
    return {"metrics": {"l0": 3.0}, "counts": {"tokens": 9}, "intervals": {}, "n": {"l0": seeds},
            "seeds": {f"seed-{n}": {} for n in range(seeds)}}  # fmt: skip


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that were compared, in the order in which they were."""
    names: list[str] = []
    write = ConsistencyJob._write

    def counted(self: ConsistencyJob, folder: Path) -> None:
        names.append(self.name)
        write(self, folder)

    monkeypatch.setattr(ConsistencyJob, "_write", counted)
    monkeypatch.setenv("SAE_REPRO_JOBS", "1")
    return names


def test_results_lie_beside_what_they_compare(
    study: Evaluation, tmp_path: Path, made: list[str]
) -> None:
    write_cell(tmp_path, "cell", [0, 0, 1])
    out = tmp_path / "evaluate"
    deliver(out, jobs_of(study, tmp_path, {"cell": [0, 0, 1]}), CellStore(study.store))
    whole = with_consistency(whole_of(3), out / "cell")
    assert whole["metrics"]["l0"] == 3.0 and whole["n"] == {"l0": 3} | dict.fromkeys(
        read_json(out / "cell" / FOLDER / "consistency.json")["metrics"], 3
    )
    assert whole["counts"]["consistency_latents"] == 3 * 2 * (K - DEAD)
    for place in ("seed-0", "seed-1", "seed-2"):
        check(out / "cell" / place)
        frame = pd.read_parquet(out / "cell" / place / "latents.parquet")
        assert frame["stability"].isna().tolist() == [False] * (K - DEAD) + [True] * DEAD
    pairs = pd.read_parquet(out / "cell" / FOLDER / "pairs.parquet")
    assert pairs["pw_mcc"].iloc[0] == pytest.approx(1.0)
    # the twin finds each latent again whole, the third seed not
    first = pd.read_parquet(out / "cell/seed-0/latents.parquet")["stability"]
    assert (1 + pairs["pw_mcc"].iloc[1]) / 2 == pytest.approx(first.mean())


def test_only_the_cell_whose_seed_changed_is_compared_again(
    study: Evaluation, tmp_path: Path, made: list[str]
) -> None:
    out, store = tmp_path / "evaluate", CellStore(study.store)
    for name in ("a", "b"):
        write_cell(tmp_path, name, [0, 1] if name == "a" else [0, 2])
    deliver(out, jobs_of(study, tmp_path, {"a": [0, 1], "b": [0, 2]}), store)
    assert sorted(made) == ["a", "b"]
    deliver(out, jobs_of(study, tmp_path, {"a": [0, 1], "b": [0, 2]}), store)
    assert sorted(made) == ["a", "b"]
    deliver(out, jobs_of(study, tmp_path, {"a": [0, 1], "b": [0, 3]}), store)
    assert made[2:] == ["b"]
    # back again: from the store
    deliver(out, jobs_of(study, tmp_path, {"a": [0, 1], "b": [0, 2]}), store)
    # damaged: from the store, too
    (out / "a" / FOLDER / "pairs.parquet").write_bytes(b"")
    deliver(out, jobs_of(study, tmp_path, {"a": [0, 1], "b": [0, 2]}), store)
    check(out / "a" / FOLDER)
    assert len(made) == 3


def test_a_second_delivery_changes_no_byte(
    study: Evaluation, tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cell(tmp_path, "cell", [0, 1])
    out, jobs = tmp_path / "evaluate", jobs_of(study, tmp_path, {"cell": [0, 1]})

    def contents() -> dict[Path, bytes]:
        deliver(out, jobs, CellStore(study.store))
        with_consistency(whole_of(2), out / "cell")
        return {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    first = contents()
    assert contents() == first
    monkeypatch.setenv("SAE_REPRO_NO_STORE", "1")
    (out / "cell" / FOLDER / "pairs.parquet").write_bytes(b"")
    assert contents() == first


def test_without_the_choice_the_column_goes(
    study: Evaluation, tmp_path: Path, made: list[str]
) -> None:
    write_cell(tmp_path, "cell", [0, 1])
    out = tmp_path / "evaluate" / "cell"
    frame = pd.read_parquet(out / "seed-0/latents.parquet")
    frame.assign(stability=1.0).to_parquet(out / "seed-0/latents.parquet", index=False)
    whole = whole_of(2)
    assert with_consistency(whole, out) == whole
    assert "stability" not in pd.read_parquet(out / "seed-0/latents.parquet")


def test_a_failed_seed_is_left_out(study: Evaluation, tmp_path: Path, made: list[str]) -> None:
    write_cell(tmp_path, "cell", [0, 0, 1], failed=2)
    out = tmp_path / "evaluate"
    deliver(out, jobs_of(study, tmp_path, {"cell": [0, 0, 1]}), CellStore(study.store))
    whole = with_consistency(whole_of(3), out / "cell")
    assert whole["counts"]["consistency_seeds"] == 2
    assert whole["metrics"]["pw_mcc"] == pytest.approx(1.0)


@pytest.mark.parametrize("extra", ["r_mag", "threshold"])
def test_directions_do_not_depend_on_what_only_scales_or_shifts(extra: str) -> None:
    """A gated SAE's scales and a JumpReLU's thresholds, and the norm of a column."""
    weights = sae_of(0).weights
    assert set(LATENT_AXIS) >= {extra}
    other = replace(weights, W_enc=weights.W_enc * 3, **{extra: torch.ones(K)})
    a, b = (Directions.of(one, np.arange(K)) for one in (weights, other))
    assert a.encoder_kd == pytest.approx(b.encoder_kd)
