"""A study as its stages leave it: a random model of 16 dimensions, two random SAEs, their names."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.autoencoders import SAE, Weights, save
from sae_repro.contents import seal
from sae_repro.corpus.tokenizers import word_level
from sae_repro.extract.extraction import Inputs, extract
from sae_repro.extract.resumption import States
from sae_repro.files import write_json
from sae_repro.params import Extract
from sae_repro.params.yaml_files import read_yaml
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.subject import load_subject

ROOT = Path(__file__).resolve().parents[2]
HOOK = "blocks.1.hook_resid_post"
WORDS = [chr(97 + i) for i in range(18)] + ["[red]", "<script>"]
D, K, CONTEXT = 16, 32, 12
CELL = "topk-two"
LABELS = {1: "judged", 2: "POLYSEMANTIC"}
CONCEPTS = {1: "lost", 2: "noun", 3: "verb"}


def random_sae(seed: int = 0) -> SAE:
    """TopK with 5 of 32 latents; atoms of length 1."""
    generator = torch.Generator().manual_seed(seed)
    w_dec = torch.nn.functional.normalize(torch.randn(K, D, generator=generator), dim=1)
    weights = Weights(w_dec.T.contiguous(), torch.zeros(K), w_dec, torch.zeros(D))
    return SAE("topk", weights, k=5, metadata={"hook_name": HOOK})


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with params.yaml and artifacts up to the judge; read it only."""
    study = tmp_path_factory.mktemp("explained")
    artifacts = study / "artifacts"
    raw = read_yaml(ROOT / "params.yaml")
    raw["cells"] = {
        CELL: {"activation": "topk", "k": 5, "expansion": 2, "seeds": [0, 1]},
        "topk-untrained": {"activation": "topk", "k": 5, "expansion": 2},
    }
    raw["recipes"] = {}
    raw["evaluate"].pop("only")
    raw["report"] = {}
    write_json(study / "params.yaml", raw)
    tokenizer = word_level(WORDS)
    for folder in ("corpus/tokenizer", "subject"):
        tokenizer.save_pretrained(artifacts / folder)
    config = GPT2Config(
        vocab_size=len(WORDS) + 3, n_positions=2 * CONTEXT, n_embd=D, n_layer=3, n_head=2,
        initializer_range=0.3, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(artifacts / "subject")
    document = np.arange(40, dtype=np.int32) % len(WORDS) + 3
    np.save(artifacts / "corpus/tokens.npy", np.tile(document, 3))
    pd.DataFrame(
        {"document": range(3), "start": [0, 40, 80], "length": 40,
         "split": ["train", "calibration", "validation"], "label": None}
    ).to_parquet(artifacts / "corpus/documents.parquet")  # fmt: skip
    settings = Extract(
        hooks=(HOOK,), context=CONTEXT, n_tokens=40, n_calibration_tokens=40,
        n_validation_tokens=40, norm_limit=10, threads=1,
    )  # fmt: skip
    subject, corpus = load_subject(artifacts / "subject"), TokenDocuments.load(artifacts / "corpus")
    (artifacts / "extract").mkdir()
    extract(Inputs(subject, corpus, {}), settings, seed=0, states=States(artifacts / "extract"))
    for stage in ("corpus", "subject", "extract"):
        seal(artifacts / stage)
    for seed in range(2):
        _results(artifacts, f"{CELL}/seed-{seed}", random_sae(seed))
    seal(artifacts / "judge")
    return study


def _results(artifacts: Path, name: str, sae: SAE) -> None:
    trained, evaluated = artifacts / "train" / name, artifacts / "evaluate" / name
    save(sae, trained)
    write_json(trained / "train.json", {"status": "ok", "hook": HOOK})
    evaluated.mkdir(parents=True)
    latents = np.arange(K)
    pd.DataFrame({"latent": latents, "density": latents / 100, "max_activation": 5.0}).to_parquet(
        evaluated / "latents.parquet"
    )
    kinds = {2: "polysemantic"}
    pd.DataFrame(
        [(i, kinds.get(i, "monosemantic"), CONCEPTS.get(i)) for i in latents],
        columns=["latent", "class", "concept"],
    ).to_parquet(evaluated / "monosemantic.parquet")
    pd.DataFrame(
        [(4, 1.0, "little"), (4, 9.0, "la\nrge"), (3, 9.0, "lost")],
        columns=["latent", "activation", "token"],
    ).to_parquet(evaluated / "contexts.parquet")
    for folder in (trained, evaluated):
        seal(folder)
    path = artifacts / "judge" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    explained = [{"latent": 5, "explanation": "explained"}]
    path.write_text(json.dumps({"labels": LABELS, "explained": explained}))
