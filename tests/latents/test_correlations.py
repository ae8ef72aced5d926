"""Mean max correlations: against numpy and the stage `evaluate`, and of a study's cells."""

import csv
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sae_repro.autoencoders import SAE, Weights, load
from sae_repro.cli import app
from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.evaluate.codes import code_of
from sae_repro.evaluate.metrics.references import correlation as of_evaluate
from sae_repro.evaluate.metrics.references.correlation import Rows
from sae_repro.files import read_json, write_json
from sae_repro.latents import correlation
from sae_repro.latents.correlation import Encoded, mean_max, over_seeds
from sae_repro.numerics.pairs import jackknife, seed_pairs

from ..pipeline.conftest import small_text
from ..pipeline.in_process import carry_out, study

D, N, DOCUMENT = 8, 400, 25


def sae_of(k: int, seed: int, *, dead: int = 0) -> SAE:
    """ReLU with `k` latents, of which the last `dead` never fire."""
    generator = torch.Generator().manual_seed(seed)
    w_dec = torch.nn.functional.normalize(torch.randn(k, D, generator=generator), dim=1)
    bias = torch.full((k,), -0.3)
    bias[k - dead :] = -1e3
    return SAE("standard", Weights(w_dec.T.contiguous(), bias, w_dec, torch.zeros(D)))


@pytest.fixture(scope="module")
def rows() -> Rows:
    generator = torch.Generator().manual_seed(5)
    position = np.arange(N)
    return Rows(torch.randn(N, D, generator=generator), position // DOCUMENT, position % DOCUMENT)


def dense(reference: SAE, sae: SAE, x_nd: torch.Tensor, shift: int) -> tuple[float, int]:
    """(mean over the reference's latents of the largest correlation, latents that vary)."""
    r_nr = np.roll(reference.encode(x_nd).double().numpy(), -shift, axis=0)
    z_nk = sae.encode(x_nd).double().numpy()
    r_nr, z_nk = (a[:, a.std(axis=0) > 0] for a in (r_nr, z_nk))
    both = np.corrcoef(r_nr, z_nk, rowvar=False)[: r_nr.shape[1], r_nr.shape[1] :]
    return float(both.max(axis=1).mean()), r_nr.shape[1]


def shift_of(code: Encoded) -> int:
    """The rows by which the second half of `both_nr` was shifted."""
    aligned, shifted = np.split(code.both_nr.toarray(), 2, axis=1)
    found = [s for s in range(1, N) if (np.roll(aligned, -s, axis=0) == shifted).all()]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("latents", [512, 7, 1])
def test_it_is_the_dense_restatement(
    rows: Rows, latents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation, "LATENTS", latents)  # no more than that at once
    small, large = sae_of(9, 0, dead=2), sae_of(30, 1, dead=3)
    codes = [Encoded.of(sae, rows, seed=0) for sae in (small, large)]
    shift = shift_of(codes[0])
    assert shift % DOCUMENT == 0, "tokens meet those at the same place of other documents"
    for a, b in permutations(range(2)):
        saes = (small, large)
        found = mean_max(codes[a], codes[b])
        value, alive = dense(saes[a], saes[b], rows.x_nd, 0)
        null, _ = dense(saes[a], saes[b], rows.x_nd, shift)
        assert found.value == pytest.approx(value, rel=1e-9)
        assert found.null == pytest.approx(null, rel=1e-9)
        assert found.latents == alive == (7, 27)[a]
        assert found.null < found.value


def test_it_is_the_metric_of_the_stage_evaluate(rows: Rows) -> None:
    small, large = sae_of(9, 0, dead=2), sae_of(30, 1)
    index = np.stack([rows.document, rows.position, rows.position], axis=1).astype(np.int32)

    z_nk = large.encode(rows.x_nd)
    references = of_evaluate.EncodedReferences.of({9: small}, rows, seed=0)
    _, _, summary = of_evaluate.correlations(
        lambda: [code_of(z_nk, index)], references, rows, (z_nk > 0).sum(0).numpy(), seed=0
    )
    found = mean_max(*(Encoded.of(sae, rows, seed=0) for sae in (small, large)))
    assert found.value == pytest.approx(summary.metrics["mean_max_correlation_9"], rel=1e-6)
    assert found.null == pytest.approx(summary.metrics["mean_max_correlation_null_9"], rel=1e-6)
    assert found.latents == summary.counts["reference_latents_9"]


def test_an_sae_holds_itself_and_its_rotations_of_latents(rows: Rows) -> None:
    sae = sae_of(20, 2)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    w = sae.weights
    moved = SAE("standard", Weights(w.W_enc[:, order], w.b_enc[order], w.W_dec[order], w.b_dec))
    codes = [Encoded.of(one, rows, seed=0) for one in (sae, moved)]
    assert mean_max(codes[0], codes[1]).value == pytest.approx(1)
    assert codes[0].l0 == pytest.approx(float((sae.encode(rows.x_nd) > 0).sum() / N))


def test_what_cannot_be_known_is_nan(rows: Rows) -> None:
    silent, sae = (Encoded.of(one, rows, 0) for one in (sae_of(4, 0, dead=4), sae_of(4, 1)))
    assert np.isnan(mean_max(silent, sae).value) and mean_max(silent, sae).latents == 0
    assert np.isnan(mean_max(sae, silent).value)
    alone = Rows(rows.x_nd, np.zeros(N, np.int64), np.arange(N))
    one = [Encoded.of(sae_of(4, seed), alone, 0) for seed in range(2)]
    assert mean_max(*one).value > 0 and np.isnan(mean_max(*one).null)


def test_pairs_are_of_different_seeds_and_no_sae_meets_itself() -> None:
    a, b = ({seed: f"{name}{seed}" for seed in range(3)} for name in "ab")
    assert seed_pairs(a, b) == seed_pairs(a, a) == list(permutations(range(3), 2))
    assert seed_pairs({0: "a"}, {0: "a"}) == []
    assert seed_pairs({0: "a"}, {0: "b"}) == [(0, 0)]
    assert seed_pairs({0: "a"}, b) == [(0, 1)]
    assert seed_pairs({1: "a1"}, a) == [(1, 0)]


def test_intervals_are_the_jackknifes_over_seeds(rows: Rows) -> None:
    small = {seed: Encoded.of(sae_of(9, seed), rows, 0) for seed in range(3)}
    large = {seed: Encoded.of(sae_of(30, 10 + seed), rows, 0) for seed in range(3)}
    pairs = list(permutations(range(3), 2))
    found = over_seeds(small, large, pairs)
    wanted = jackknife({(i, j): mean_max(small[i], large[j]).value for i, j in pairs})
    assert (found.value, found.low, found.high) == pytest.approx(wanted)
    assert found.pairs == 6 and found.low < found.value < found.high
    assert np.isnan(over_seeds(small, large, [(0, 1), (1, 0)]).low)


# a study's cells

TOPK = {"expansion": 4, "activation": "topk", "k": 3}
CELLS = {
    "wide": {**TOPK, "seeds": [0, 1, 2]},
    "narrow": {**TOPK, "expansion": 1, "seeds": [0, 1, 2]},
    "alone": {**TOPK, "expansion": 2, "prefixes": "random"},
    "elsewhere": {**TOPK, "hook": "blocks.1.hook_resid_pre"},
    "untrained": {**TOPK, "k": 2},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study after `train`; one cell was added since. Read it only."""
    folder = tmp_path_factory.mktemp("correlated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAE_REPRO_JOBS", "1")
        declared = study(small_text(folder / "text.jsonl"))
        declared["cells"] = {name: cell for name, cell in CELLS.items() if name != "untrained"}
        carry_out(declared, "corpus", "subject", "extract", "train")
    write_json(folder / "params.yaml", {**declared, "cells": CELLS})
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(
        app, ["correlations", *arguments, "--study", str(folder)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def rows_of(folder: Path, to: Path, *arguments: str) -> dict[tuple[str, str], dict[str, str]]:
    run(folder, *arguments, "--csv", str(to))
    with to.open() as file:
        return {(row["reference"], row["cell"]): row for row in csv.DictReader(file)}


def test_cells_meet_references_and_another_seed_of_themselves(
    finished: Path, tmp_path: Path
) -> None:
    found = rows_of(
        finished, tmp_path / "out.csv", "wide", "alone", "--reference", "n*", "--reference", "wide"
    )
    assert list(found) == [("narrow", "alone"), ("wide", "alone"), ("narrow", "wide"),
                           ("wide", "wide")]  # fmt: skip
    for (reference, cell), row in found.items():
        assert float(row["null"]) < float(row["mean_max_correlation"]) <= 1
        assert row["pairs"] == ("1" if cell == "alone" else "6")
        assert bool(row["low"]) == (cell != "alone")
        assert int(row["reference_K"]) == {"narrow": 8, "wide": 32}[reference]
        assert float(row["l0"]) == pytest.approx(3)


def test_the_numbers_follow_from_the_codes_of_the_trained_saes(
    finished: Path, tmp_path: Path, make_rows: Callable[[Path], torch.Tensor]
) -> None:
    row = rows_of(finished, tmp_path / "out.csv", "wide/seed-1", "--reference", "narrow/seed-0")
    x_nd = make_rows(finished)
    saes = [load(finished / "artifacts/train" / name) for name in ("narrow/seed-0", "wide/seed-1")]
    value, alive = dense(saes[0], saes[1], x_nd, 0)
    (only,) = row.values()
    assert float(only["mean_max_correlation"]) == pytest.approx(value, rel=1e-5)
    assert float(only["latents"]) == alive


@pytest.fixture
def make_rows() -> Callable[[Path], torch.Tensor]:
    """All validation activations, of fewer tokens than the sample has."""
    from sae_repro.readers.shards import ActivationStore

    def of(folder: Path) -> torch.Tensor:
        store = ActivationStore(folder / "artifacts/extract")
        whole = store.activations("blocks.0.hook_resid_post", "validation").whole()
        return torch.from_numpy(whole.astype(np.float32))

    return of


def test_the_figure_is_the_same_bytes_again(finished: Path, tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(finished, "wide", "narrow", "alone", "--figure", str(tmp_path / name))
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {f"correlations.{ending}" for ending in ("png", "svg", "pdf")}


def test_the_table_names_the_hook_and_the_sample(finished: Path) -> None:
    output = run(finished, "wide", "narrow")
    assert "blocks.0.hook_resid_post, 600 held-out tokens of " in output
    assert "mean max correlation" in output and "null" in output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["wid"], "did you mean wide"),
        (["x*"], r"x\*: fits no cell"),
        (["wide/seed-7"], "no such cell"),
        (["untrained"], "not trained yet"),
        (["wide", "--reference", "elsewhere"], "elsewhere reads blocks.1.hook_resid_pre, wide"),
        (["alone"], "an SAE can't be compared with itself"),
        (["wide", "--csv", "nowhere/out.csv"], "no folder nowhere; make it first"),
        (["wide", "--figure", "nowhere"], "no such folder; make it first"),
    ],
)
def test_faults_say_what_to_do(finished: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        run(finished, *arguments)


def test_a_failed_seed_is_left_out_and_named(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "study")
    path = folder / "artifacts/train/wide/seed-1/train.json"
    write_json(path, read_json(path) | {"status": "failed", "reason": "loss is NaN"})
    seal(path.parent)
    output = run(folder, "wide", "--reference", "narrow")
    assert "wide/seed-1: its training failed, left out" in output
    (line,) = [line for line in output.splitlines() if line.startswith("wide  ")]
    assert line.split()[-1] == "2" and "–" in line


def test_activations_that_are_missing_are_named(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "study")
    shutil.rmtree(folder / "artifacts/extract")
    with pytest.raises(StudyError, match=r"artifacts/extract: missing; .*extract"):
        run(folder, "wide", "narrow")
