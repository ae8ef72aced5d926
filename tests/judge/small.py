"""A small study's artifacts, made without training: latents that are known to fire on what."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights, save
from sae_repro.contents import seal
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate import document_fidelity, evaluation
from sae_repro.evaluate.evaluation import evaluate_into
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.extract.sinks import OrderedSink
from sae_repro.files import read_json, write_json
from sae_repro.params import Corpus, Evaluate, StoriesSource
from sae_repro.readers.documents import TokenDocuments

HOOK = "blocks.0.hook_resid_post"
D = 8
NAMES = ("determiner", "verb", "name", "preposition", "pronoun", "sentence_end")
"""Concepts on which latents 0 … 5 fire; 6 fires on random tokens, 7 never."""


def make_corpus(folder: Path) -> None:
    source = StoriesSource(kind="stories", n_documents=4000)
    write_stories(Corpus(source=source), source, 0, folder)


def index_of(corpus: TokenDocuments) -> np.ndarray:
    """(document, position, token) of all validation tokens, in natural order."""
    parts = []
    for number in corpus.split("validation").tolist():
        tokens = corpus.document(number)
        places = np.arange(len(tokens))
        parts.append(np.stack([np.full(len(tokens), number), places, tokens], axis=1))
    return np.concatenate(parts).astype(np.int32)


def make_activations(folder: Path, corpus: TokenDocuments, *, shuffled: bool = False) -> None:
    """artifacts/extract: dimension j is large where the token carries concept j."""
    index = index_of(corpus)
    concepts = read_json(corpus.folder / "concepts.json")
    numbers = [concept["name"] for concept in concepts]
    start = corpus.documents["start"].to_numpy()[index[:, 0]]
    packed = np.load(corpus.folder / "labels.npy")[start + index[:, 1]]
    bits = np.unpackbits(packed, axis=1, count=len(concepts), bitorder="little").astype(bool)
    for i in reversed(range(len(concepts))):
        if concepts[i]["parent"] is not None:
            bits[:, numbers.index(concepts[i]["parent"])] |= bits[:, i]
    rng = np.random.default_rng(0)
    x = np.zeros((len(index), D), dtype=np.float32)
    x[:, : len(NAMES)] = bits[:, [numbers.index(name) for name in NAMES]]
    x[:, 6] = rng.random(len(index)) < 0.05
    x *= 1 + rng.random(x.shape, dtype=np.float32)
    sink = OrderedSink(folder, "validation", [HOOK], D, "float32", 5000)
    order = rng.permutation(len(index)) if shuffled else np.arange(len(index))
    sink.append({HOOK: x[order]}, index[order])
    entries = sink.close()
    write_json(
        folder / "manifest.json",
        {
            "hooks": {HOOK: {"d_in": D, "shards": {"validation": entries[HOOK]}}},
            "index": {"validation": entries["index"]},
            "pooling": "token",
        },
    )
    seal(folder)


def make_cell(artifacts: Path, name: str, weights: Weights | None, seed: int = 0) -> None:
    """A trained and evaluated cell; without weights, one that failed."""
    trained, evaluated = artifacts / "train" / name, artifacts / "evaluate" / name
    for folder in (trained, evaluated):
        folder.mkdir(parents=True)
    summary: dict[str, Any] = {"status": "ok", "hook": HOOK, "d_in": D, "d_sae": D,
                            "choices": {"activation": "relu"}, "unreached": []}  # fmt: skip
    if weights is None:
        summary |= {"status": "failed", "reason": "collapsed"}
    else:
        save(SAE("standard", weights), trained)
    write_json(trained / "train.json", summary)
    study = Evaluation(
        settings=Evaluate(metrics=("monosemanticity",)), seed=seed, inputs="", trainer="",
        store=artifacts,
        corpus=artifacts / "corpus", subject=artifacts, activations=artifacts / "extract",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # there is no language model
        patch.setattr(
            evaluation, "fidelity_columns", lambda *given: document_fidelity._aligned({}, given[4])
        )
        evaluate_into(study, trained, evaluated)


def identity() -> Weights:
    return Weights(torch.eye(D), torch.full((D,), -0.5), torch.eye(D), torch.zeros(D))


def make_study(folder: Path) -> Path:
    """A study's folder with all that `judge` reads; cells clean, mixed and lost."""
    artifacts = folder / "artifacts"
    make_corpus(artifacts / "corpus")
    corpus = TokenDocuments.load(artifacts / "corpus")
    make_activations(artifacts / "extract", corpus)
    make_cell(artifacts, "clean", identity())
    mixed = identity()
    mixed.W_enc[1, 0] = 1.0  # latent 0 fires on determiners and on verbs
    make_cell(artifacts, "mixed", mixed)
    make_cell(artifacts, "lost", None)
    for stage in ("corpus", "train", "evaluate"):
        seal(artifacts / stage)
    return folder
