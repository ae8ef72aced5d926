"""`sae-repro consensus`: what all seeds found, as an SAE that is read back like any other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from sae_repro.autoencoders import SAE, Weights, load, save
from sae_repro.autoencoders.interchange import import_sae
from sae_repro.cli import app
from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.files import write_json
from sae_repro.params import load as load_study
from sae_repro.params.yaml_files import read_yaml
from sae_repro.pins import check_imports

ROOT = Path(__file__).resolve().parents[1]
HOOK = "blocks.1.hook_resid_post"
D, COMMON, OWN = 32, 5, 7
K = COMMON + OWN
CELL = "topk-three"


def sae_of(architecture: str, seed: int) -> SAE:
    """Five latents that all seeds have, and seven of its own, shuffled."""
    rng = np.random.default_rng(100 + seed)
    rows = np.concatenate([np.eye(D)[:COMMON], rng.standard_normal((OWN, D))])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True))[rng.permutation(K)]
    w_dec = torch.from_numpy(rows).float()
    weights = Weights(w_dec.T.contiguous(), torch.arange(K) / 100, w_dec, torch.ones(D))
    if architecture == "jumprelu":
        weights = replace(weights, threshold=torch.arange(K) / 10)
    return SAE(
        architecture, weights, k=4 if architecture == "topk" else None, metadata={"hook_name": HOOK}
    )


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A study with one cell of three seeds, trained and evaluated; one common latent is dead."""

    def make(architecture: str) -> Path:
        raw = read_yaml(ROOT / "params.yaml")
        one = {"activation": "topk", "k": 4, "expansion": 1}
        raw["cells"] = {CELL: {**one, "seeds": [0, 1, 2]}, "topk-one": one}
        raw["recipes"] = {}
        raw["evaluate"].pop("only")
        raw["report"] = {}
        write_json(tmp_path / "params.yaml", raw)
        for seed in range(3):
            sae = sae_of(architecture, seed)
            trained, evaluated = (
                tmp_path / "artifacts" / stage / CELL / f"seed-{seed}"
                for stage in ("train", "evaluate")
            )
            trained.mkdir(parents=True)
            evaluated.mkdir(parents=True)
            save(sae, trained)
            write_json(trained / "train.json", {"hook": HOOK})
            write_json(evaluated / "metrics.json", {"status": "ok"})
            # the common latent that reads the first dimension never fires
            fired = np.where(sae.weights.W_dec[:, 0] == 1, 0, 50)
            pd.DataFrame({"n_fired": fired, "density": fired / 100}).to_parquet(
                evaluated / "latents.parquet", index=False
            )
            seal(trained)
            seal(evaluated)
        seal(tmp_path / "artifacts" / "evaluate" / CELL)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["consensus", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_the_latents_of_all_seeds_are_kept_as_the_first_seed_trained_them(
    study: Callable[[str], Path], architecture: str
) -> None:
    folder = study(architecture)
    output = run(CELL, "--to", "saes/common")
    sae, first = import_sae(folder / "saes/common"), load(folder / f"artifacts/train/{CELL}/seed-0")
    assert sae.d_sae == COMMON - 1
    kept = [int(torch.argmax(first.weights.W_dec @ row)) for row in sae.weights.W_dec]
    assert kept == sorted(kept)
    assert sae.weights.W_dec.max(dim=1).values.tolist() == pytest.approx([1.0] * (COMMON - 1))
    for name, tensor in sae.weights.named().items():
        whole = getattr(first.weights, name)
        if name == "b_dec":
            assert torch.equal(tensor, whole)
        else:
            assert torch.equal(tensor, whole[:, kept] if name == "W_enc" else whole[kept])
    # four latents, each on half of the tokens
    assert sae.k == (2 if architecture == "topk" else None)
    assert "4 of the 11 alive latents of seed-0" in output
    x_nd = torch.randn(20, D, generator=torch.Generator().manual_seed(0))
    if architecture != "topk":  # where latents compete, fewer of them compete
        assert torch.allclose(sae.encode(x_nd), first.encode(x_nd)[:, kept], atol=1e-6)


def test_the_printed_cell_is_one_of_params_yaml(study: Callable[[str], Path]) -> None:
    folder = study("topk")
    line = run(CELL, "--to", "saes/common").splitlines()[-1]
    raw = read_yaml(folder / "params.yaml")
    (folder / "entry.yaml").write_text(line.strip())
    raw["cells"] |= read_yaml(folder / "entry.yaml")
    write_json(folder / "params.yaml", raw)
    cells = load_study(folder / "params.yaml").cells
    assert cells[f"{CELL}-consensus"].hook == HOOK
    check_imports(cells, folder)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["topk-thre"], "did you mean topk-three?"),
        (["topk-one"], "has one SAE; give the cell seeds"),
        ([CELL, "--threshold", "1"], "lower --threshold"),
    ],
)
def test_what_has_no_consensus_is_said_in_one_line(
    study: Callable[[str], Path], arguments: list[str], says: str
) -> None:
    folder = study("topk")
    with pytest.raises(StudyError, match=says) as refused:
        run(*arguments, "--to", "saes/common")
    assert "\n" not in str(refused.value)
    assert not (folder / "saes").exists()


def test_damaged_artifacts_are_refused(study: Callable[[str], Path]) -> None:
    folder = study("topk")
    (folder / f"artifacts/evaluate/{CELL}/seed-1/latents.parquet").write_bytes(b"")
    with pytest.raises(StudyError, match=r"seed-1/latents\.parquet: changed"):
        run(CELL, "--to", "saes/common")
