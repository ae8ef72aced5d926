"""Dashboards of latents and model cards: what Neuronpedia's own classes load, against the codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from sae_repro.autoencoders import load
from sae_repro.autoencoders.interchange import import_sae
from sae_repro.cli import app
from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.files import read_json, write_json
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore

from ..judge.small import HOOK, D, make_study

FIELDS = {
    "feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
    "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson",
    "correlated_features_indices", "correlated_features_l1", "correlated_features_pearson",
    "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero", "freq_hist_data_bar_values",
    "freq_hist_data_bar_heights", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
    "n_prompts_total", "n_tokens_in_prompt", "dataset", "activations", "decoder_weights_dist",
    "vector",
}  # fmt: skip
"""Of SAEDashboard 0.8.0's NeuronpediaDashboardFeature."""
OF_ACTIVATION = {"bin_min", "bin_max", "bin_contains", "tokens", "values", "qualifying_token_index"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judge's small study, with a language model of its width and a params.yaml."""
    folder = make_study(tmp_path_factory.mktemp("study"))
    artifacts = folder / "artifacts"
    manifest = read_json(artifacts / "extract/manifest.json")
    write_json(artifacts / "extract/manifest.json",
               {**manifest, "context": 32, "prepend_bos": True})  # fmt: skip
    seal(artifacts / "extract")
    words = len(TokenDocuments.load(artifacts / "corpus").tokenizer())
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=words + 3, n_embd=D, n_layer=1, n_head=2, n_positions=32, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(artifacts / "subject")
    write_json(artifacts / "subject/subject.json", {"kind": "train", "name": "owner/t|iny"})
    seal(artifacts / "subject")
    for place in ("evaluate/clean", "evaluate/lost", "evaluate"):
        seal(artifacts / place)
    train = artifacts / "train/clean/train.json"
    write_json(train, {**read_json(train), "tokens": 5000, "seed": 3, "key": "k" * 8})
    with (folder / "params.yaml").open("w") as file:
        YAML().dump({"subject": {"source": {"kind": "hub", "name": "a: b", "revision": "1" * 40}},
                     "corpus": {"source": {"kind": "stories"}}}, file)  # fmt: skip
    return folder


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["export", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def written(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("out") / "dashboards"
    said = run("clean", "--format", "neuronpedia", "--to", str(to), "--study", str(study))
    assert "7 of 8 latents fire" in said
    return to


@pytest.fixture(scope="module")
def batch(written: Path) -> dict[str, Any]:
    return json.loads((written / "batch-0.json").read_text())


@pytest.fixture(scope="module")
def dense(study: Path) -> Callable[[int], dict[tuple[int, int], float]]:
    """Of a latent: its activation by (document, position), from all of z at once."""
    store = ActivationStore(study / "artifacts/extract")
    x_nd = torch.from_numpy(store.activations(HOOK, "validation").whole().astype(np.float32))
    z_nk = load(study / "artifacts/train/clean").encode(x_nd).numpy()
    index = store.index("validation").whole()
    places = [(int(d), int(p)) for d, p, _ in index]
    return lambda latent: dict(zip(places, z_nk[:, latent].tolist(), strict=True))


def test_a_batch_has_the_fields_that_their_loader_reads(batch: dict[str, Any]) -> None:
    assert set(batch) == {"model_id", "layer", "sae_set", "sae_id_suffix", "features"}
    assert (batch["model_id"], batch["layer"], batch["sae_set"]) == ("t|iny", 0, "clean")
    assert [set(feature) for feature in batch["features"]] == [FIELDS] * 7
    for feature in batch["features"]:
        assert feature["activations"]
        assert all(set(one) == OF_ACTIVATION for one in feature["activations"])


def test_their_own_dataclasses_load_it_and_give_it_back(written: Path) -> None:
    theirs = pytest.importorskip(
        "sae_dashboard.neuronpedia.neuronpedia_dashboard", reason="sae-dashboard is not installed"
    )
    config = pytest.importorskip("sae_dashboard.neuronpedia.neuronpedia_runner_config")
    raw = json.loads((written / "batch-0.json").read_text())
    assert theirs.NeuronpediaDashboardBatch(**raw).to_dict() == raw
    config.NeuronpediaRunnerConfig(**json.loads((written / "run_settings.json").read_text()))


def test_activations_are_those_of_the_sae_on_each_token(
    batch: dict[str, Any], study: Path, dense: Callable[[int], dict[tuple[int, int], float]]
) -> None:
    corpus = TokenDocuments.load(study / "artifacts/corpus")
    table = pd.read_parquet(study / "artifacts/evaluate/clean/contexts.parquet")
    for feature in batch["features"]:
        latent = feature["feature_index"]
        by_place, mine = dense(latent), table[table["latent"] == latent]
        top = mine[mine["kind"] == "top"].sort_values("rank")
        shown = [one for one in feature["activations"] if one["bin_min"] == -1]
        assert len(feature["activations"]) == len(mine) and len(shown) == len(top)
        for row, one in zip(top.to_dict("records"), shown, strict=True):
            document, at = row["document"], one["qualifying_token_index"]
            first = row["position"] - at
            length = len(one["tokens"])
            ids = corpus.document(document)[first : first + length].tolist()
            decode = corpus.tokenizer().backend_tokenizer.decode
            assert "".join(one["tokens"]).strip() == decode(ids, skip_special_tokens=False).strip()
            expected = [by_place[document, first + i] for i in range(length)]
            assert one["values"] == pytest.approx(expected, abs=6e-4)
            assert one["values"][at] == pytest.approx(row["activation"], abs=6e-4)


def test_samples_lie_within_their_interval(batch: dict[str, Any]) -> None:
    for feature in batch["features"]:
        sampled = [one for one in feature["activations"] if one["bin_min"] != -1]
        for one in sampled:
            peak = one["values"][one["qualifying_token_index"]]
            assert one["bin_min"] - 1e-3 <= peak <= one["bin_max"] + 1e-3
        shares = {(one["bin_min"], one["bin_contains"]) for one in sampled}
        assert sum(share for _, share in shares) == pytest.approx(1, abs=0.01)


def test_densities_histograms_and_dead_latents_are_counted_on_all_tokens(
    batch: dict[str, Any], written: Path, study: Path, dense: Callable[..., dict[Any, float]]
) -> None:
    for feature in batch["features"]:
        values = np.array(list(dense(feature["feature_index"]).values()))
        assert feature["frac_nonzero"] == pytest.approx((values > 0).mean(), abs=1e-6)
        assert sum(feature["freq_hist_data_bar_heights"]) == (values > 0).sum()
        middles = feature["freq_hist_data_bar_values"]
        assert values[values > 0].min() <= middles[0] <= middles[-1] <= values.max()
    skipped = json.loads((written / "skipped_indexes.json").read_text())
    latents = pd.read_parquet(study / "artifacts/evaluate/clean/latents.parquet")
    assert skipped["skipped_indexes"] == latents["latent"][latents["n_fired"] == 0].tolist() == [7]


def test_the_lens_names_the_tokens_that_an_atom_promotes(
    batch: dict[str, Any], study: Path
) -> None:
    model = GPT2LMHeadModel.from_pretrained(study / "artifacts/subject")
    tokenizer = TokenDocuments.load(study / "artifacts/corpus").tokenizer()
    atoms_kd = load(study / "artifacts/train/clean").weights.W_dec
    for feature in batch["features"]:
        logits_v = model.lm_head.weight.detach() @ atoms_kd[feature["feature_index"]]
        order = logits_v.argsort(descending=True).tolist()
        for name, tokens in (("pos", order[:10]), ("neg", order[::-1][:10])):
            expected = [logits_v[t].item() for t in tokens]
            assert feature[f"{name}_values"] == pytest.approx(expected, abs=6e-4)
            texts = [tokenizer.backend_tokenizer.decode([t], skip_special_tokens=False).strip()
                     if t < len(tokenizer) else "<|outofrange|>" for t in tokens]  # fmt: skip
            assert [text.strip() for text in feature[f"{name}_str"]] == texts
        assert sum(feature["logits_hist_data_bar_heights"]) == len(logits_v)
        atom = atoms_kd[feature["feature_index"]]
        assert feature["neuron_alignment_indices"] == atom.topk(3).indices.tolist()


def test_two_runs_write_the_same_bytes(written: Path, study: Path, tmp_path: Path) -> None:
    run("clean", "--format", "neuronpedia", "--to", str(tmp_path / "b"), "--study", str(study))
    names = sorted(path.name for path in written.iterdir())
    assert names == ["batch-0.json", "run_settings.json", "skipped_indexes.json"]
    for name in names:
        assert (written / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("cell", ["lost", "no-such"])
def test_a_cell_that_failed_or_is_not_there_is_refused(
    cell: str, study: Path, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=rf"{cell}: "):
        run(cell, "--format", "neuronpedia", "--to", str(tmp_path / "x"), "--study", str(study))
    assert not (tmp_path / "x").exists()


def test_a_card_says_the_origin_and_the_metrics_and_the_folder_loads(
    study: Path, tmp_path: Path
) -> None:
    to = tmp_path / "hub"
    said = run("clean", "--format", "saelens", "--card", "--to", str(to), "--study", str(study))
    assert "with README.md" in said
    assert torch.equal(
        import_sae(to).weights.W_dec, load(study / "artifacts/train/clean").weights.W_dec
    )
    text = (to / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    matter = YAML(typ="safe").load(front)
    assert matter["library_name"] == "saelens" and matter["base_model"] == "a: b"
    assert "license" not in matter and "# license: fill in" in front
    for expected in (
        "| training tokens | 5,000 |",
        "| seed | 3 |",
        f"revision {'1' * 40}",
        r"owner/t\|iny",
        HOOK,
        "torch 2.",
        "SAE.load_from_disk",
        "import_sae",
    ):
        assert expected in body, expected
    measured = read_json(study / "artifacts/evaluate/clean/metrics.json")
    row = next(line for line in body.splitlines() if line.startswith("| FVU "))
    low, high = measured["intervals"]["fvu"]
    value = measured["metrics"]["fvu"]
    shown = [
        float(part)
        for part in row.split("|")[2].replace("[", "").replace("]", "").replace(",", "").split()
    ]
    assert shown == pytest.approx([value, low, high], rel=6e-3)


def test_a_card_of_what_was_not_evaluated_here_is_refused(study: Path, tmp_path: Path) -> None:
    foreign = study / "artifacts/train/clean"
    with pytest.raises(StudyError, match="no evaluated SAE"):
        run(str(foreign), "--format", "saelens", "--card", "--to", str(tmp_path / "x"),
            "--study", str(study))  # fmt: skip
    with pytest.raises(StudyError, match="--card"):
        run("clean", "--format", "neuronpedia", "--card", "--to", str(tmp_path / "x"),
            "--study", str(study))  # fmt: skip
    assert not (tmp_path / "x").exists()
