"""Crosscoders beside an SAE: from training to the report, and the commands on trained cells."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.autoencoders import Crosscoder, crosscoder_of, load
from sae_repro.cli import app
from sae_repro.compare.drawing import FORMATS
from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.latents import activations_of
from sae_repro.readers.joined import LevelledStore

from .conftest import small_text
from .in_process import carry_out, study

FIRST, SECOND = "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"
BOTH = f"{FIRST} + {SECOND}"
CELLS: dict[str, Any] = {
    "cross": {"hooks": [FIRST, SECOND], "expansion": 2, "activation": "batchtopk", "k": 3},
    "cross-topk": {"hooks": [FIRST, SECOND], "expansion": 2, "activation": "topk", "k": 3,
                   "seeds": [0, 1]},
    "topk": {"hook": FIRST, "expansion": 2, "activation": "topk", "k": 3},
}  # fmt: skip
STAGES = ("corpus", "subject", "extract", "train", "evaluate", "judge", "control", "compare",
          "report", "track")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a study after all stages, the working folder of the tests."""
    folder = tmp_path_factory.mktemp("crosscoders")
    here = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAE_REPRO_JOBS", "1")
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
            patch.setattr("sae_repro.compare.drawing.FORMATS", {"svg": FORMATS["svg"]})
            declared = study(small_text(folder / "text.jsonl"))
            declared["extract"] |= {"hooks": [FIRST, SECOND], "n_validation_tokens": 3000}
            declared["evaluate"] |= {"metrics": ["monosemanticity", "dictionary", "consistency"]}
            declared |= {"cells": CELLS, "report": {"explorer": ["cross*", "topk"]}}
            with Path("params.yaml").open("w") as file:
                YAML().dump(declared, file)
            carry_out(declared, *STAGES)
            yield folder
    finally:
        os.chdir(here)


def data(name: str) -> Any:
    """What a script of the explorer hands to `saeData`."""
    script = Path("reports/explorer/data", name).read_text()
    return json.loads(f"[{script.removeprefix('saeData(').rstrip().removesuffix(');')}]")[1]


def cross_of(name: str) -> Crosscoder:
    found = crosscoder_of(load(Path("artifacts/train") / name))
    assert found is not None
    return found


def atoms_of(cross: Crosscoder) -> np.ndarray:
    """[K, ΣD_h]: the parts of each latent side by side, once all hooks are of one loudness."""
    parts = cross.apart(cross.sae.weights.W_dec.double())
    levels = LevelledStore(Path("artifacts/extract")).levels(BOTH)
    return np.concatenate(
        [parts[h].numpy() * level for h, level in zip(cross.hooks, levels, strict=True)], axis=1
    )


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("name", ["cross", "cross-topk/seed-1"])
def test_the_explorer_shows_the_one_code_of_all_hooks(name: str) -> None:
    """Histograms, largest activations and neighbours, from raw activations of each hook."""
    cross, store = cross_of(name), LevelledStore(Path("artifacts/extract"))
    entry = next(one for one in data("index.js")["saes"] if one["id"] == name.replace("/", "."))
    assert (entry["hook"], entry["D"], entry["K"]) == (BOTH, 16, 32)
    assert entry["architecture"].endswith("crosscoder without revival")
    x = {h: torch.from_numpy(store.activations(h, "validation").whole()) for h in cross.hooks}
    atoms_kd = atoms_of(cross)
    norm_k = np.linalg.norm(atoms_kd, axis=1)
    a_nk = cross.encode(x).double().numpy() * norm_k
    columns, pages = data(f"{entry['id']}/latents.js"), data(f"{entry['id']}/contexts-0.js")
    counts = [sum(page["histogram"]["counts"]) if page["histogram"] else 0 for page in pages]
    assert counts == (a_nk > 0).sum(axis=0).tolist()
    alive = a_nk.any(axis=0)
    assert columns["alive"] == alive.tolist() and alive.sum() > 10
    largest = np.array(columns["max"], dtype=float)
    np.testing.assert_allclose(largest[alive], a_nk.max(axis=0)[alive], rtol=1e-3)
    cosine_kk = (atoms_kd / norm_k[:, None]) @ (atoms_kd / norm_k[:, None]).T
    np.fill_diagonal(cosine_kk, -2)
    for latent in np.flatnonzero(alive):
        nearest, cosine = columns["neighbours"][latent][0]
        assert cosine == pytest.approx(cosine_kk[latent, alive].max(), abs=1e-3)
        assert alive[nearest]
    assert columns["lens_up"] == [None] * 32  # directions of several hooks are no logits


@pytest.mark.usefixtures("finished")
def test_partners_are_latents_on_the_same_hooks() -> None:
    partners = {one["id"]: one["partner_ids"] for one in data("index.js")["saes"]}
    crosscoders = {"cross", "cross-topk.seed-0", "cross-topk.seed-1"}
    assert partners.keys() == {*crosscoders, "topk"}
    for id, others in partners.items():
        assert set(others) == (set() if id == "topk" else crosscoders - {id})


@pytest.mark.usefixtures("finished")
def test_a_crosscoders_latents_are_judged_as_an_saes() -> None:
    cross, judged = cross_of("cross"), read_json(Path("artifacts/judge/cross.json"))
    store = LevelledStore(Path("artifacts/extract"))
    x = {h: torch.from_numpy(store.activations(h, "validation").whole()) for h in cross.hooks}
    fired_k = (cross.encode(x) > 0).sum(0).numpy()
    assert judged["counts"]["latents"] == 32
    assert judged["counts"]["latents_alive"] == int((fired_k > 0).sum())
    assert judged["rates"]["uniform"]["answered"] == 10
    explained = [each for each in judged["explained"] if each["explanation"]]
    assert explained
    assert all(fired_k[each["latent"]] >= 10 for each in explained)
    assert any(each["detection"]["balanced_accuracy"] is not None for each in explained)


@pytest.mark.usefixtures("finished")
def test_tables_compare_a_crosscoder_with_those_on_its_hooks_alone() -> None:
    cells = pd.read_csv("reports/tables/cells.csv").set_index("cell")
    for name in CELLS:
        measured = read_json(Path("artifacts/evaluate") / name / "metrics.json")
        assert cells.loc[name, "fvu"] == pytest.approx(measured["metrics"]["fvu"])
        assert cells.loc[name, "hook"] == (FIRST if name == "topk" else BOTH)
    matched = pd.read_csv("reports/tables/matched_l0.csv")
    assert sorted(matched["hook"]) == [FIRST, BOTH, BOTH]
    pairs = pd.read_csv("reports/tables/matched_l0_pairs.csv")
    assert set(pairs["hook"]) <= {BOTH}
    page = Path("reports/index.html").read_text()
    assert "batchtopk crosscoder" in page
    assert Path("reports/figures/frontier.svg").is_file()


@pytest.mark.usefixtures("finished")
def test_runs_in_mlflow_name_both_hooks() -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "small"]
    runs = client.search_runs([experiment.experiment_id])
    of_cross = [run for run in runs if run.info.run_name == "cross"]
    assert of_cross and BOTH in str(of_cross[0].data.params) + str(of_cross[0].data.tags)


WORKS = {
    "cells": (["cells"], BOTH),
    "costs": (["costs"], BOTH),
    "truncations": (["truncations", "cross"], BOTH),
    "check": (["check"], BOTH),
    "saelens": (["export", "cross", "--format", "saelens", "--card", "--to", "{out}"],
                f"hook {BOTH}, with README.md"),
}  # fmt: skip
REFUSED = {
    "explain": (["explain", "Tom went home .", "--cell", "cross"], "choose a cell of one"),
    "steer": (["steer", "Tom went", "--cell", "cross", "--latent", "0=1"], "choose a cell of one"),
    "dictionary_learning": (
        ["export", "cross", "--format", "dictionary_learning", "--to", "{out}"], "use saelens"),
    "sparsify": (
        ["export", "cross-topk/seed-0", "--format", "sparsify", "--to", "{out}"], "use saelens"),
    "neuronpedia": (["export", "cross", "--format", "neuronpedia", "--to", "{out}"],
                    "latents of one hook"),
    "consensus": (["consensus", "cross-topk", "--to", "{out}"], "choose a cell of one hook"),
}  # fmt: skip


def invoke(arguments: list[str], out: Path) -> str:
    done = CliRunner().invoke(app, [word.replace("{out}", str(out)) for word in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("name", WORKS)
def test_a_command_takes_a_crosscoder(name: str, tmp_path: Path) -> None:
    arguments, line = WORKS[name]
    assert line in invoke(arguments, tmp_path / "out")


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("name", REFUSED)
def test_a_command_refuses_a_crosscoder_before_a_model_is_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("sae_repro.latents.reading.load_for", loaded)
    arguments, line = REFUSED[name]
    with pytest.raises(StudyError, match=line) as refused:
        invoke(arguments, tmp_path / "out")
    assert "\n" not in str(refused.value) and "crosscoder" in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("finished")
def test_an_exported_crosscoder_comes_back_by_its_card(tmp_path: Path) -> None:
    """And reads the activations of a text hook by hook, as the card's snippet does."""
    invoke(WORKS["saelens"][0], tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert f"# jumprelu crosscoder of gpt2-2l-8d-trained-here, {BOTH}" in card
    assert "an SAE on the activations of all hooks side by side" in card
    snippet = card.rpartition("```python\n")[2].partition("```")[0]
    x = {hook: activations_of("Tom went home .", hook=hook)[1] for hook in (FIRST, SECOND)}
    scope: dict[str, Any] = {"x": x}
    exec(snippet.replace("this-folder", str(tmp_path / "out")), scope)
    own = cross_of("cross")
    assert torch.equal(scope["z_nk"], own.encode(x)) and scope["z_nk"].any()
    for hook, x_hat in own.decode(own.encode(x)).items():
        assert torch.equal(scope["x_hat"][hook], x_hat)
