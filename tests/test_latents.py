"""Inspection of latents: nearest atoms, and activations of a text as the study extracts them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.autoencoders import SAE, Weights
from sae_repro.contents import seal
from sae_repro.corpus.tokenizers import word_level
from sae_repro.errors import StudyError
from sae_repro.extract.extraction import Inputs, extract, weights_seed
from sae_repro.extract.resumption import States
from sae_repro.files import read_json, write_json
from sae_repro.latents import activations_of, decoder_weights, neighbours
from sae_repro.latents.reading import TextReader
from sae_repro.params import Extract
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore
from sae_repro.readers.subject import load_subject, load_untrained

HOOK = "blocks.1.hook_resid_post"
WORDS = [chr(97 + i) for i in range(20)]
DOCUMENT = np.array([3, 9, 4, 22, 8, 15, 7, 7, 3, 12, 20], dtype=np.int32)
D, K = 16, 6


def sae() -> SAE:
    w_dec = torch.randn(K, D, generator=torch.Generator().manual_seed(0))
    w_dec[2] = 0.0
    w_dec[4] = -w_dec[0]
    return SAE("standard", Weights(torch.eye(D, K), torch.zeros(K), w_dec, torch.zeros(D)))


def test_neighbours_are_the_largest_cosines() -> None:
    atoms = torch.nn.functional.normalize(sae().weights.W_dec, dim=1)
    found = neighbours(sae(), 0)
    assert {latent for latent, _ in found} == {1, 3, 4, 5}  # not itself, not the zero row
    assert [c for _, c in found] == sorted((c for _, c in found), reverse=True)
    for latent, cosine in found:
        assert cosine == pytest.approx(float(atoms[0] @ atoms[latent]), abs=1e-6)
    assert found[-1] == (4, pytest.approx(-1.0))
    assert neighbours(sae(), 0, n=2) == found[:2]


def test_decoder_weights_are_the_latents_atom() -> None:
    assert torch.equal(decoder_weights(sae(), 3), sae().weights.W_dec[3])
    for latent in (-1, K):
        with pytest.raises(StudyError, match=r"this SAE has 0 … 5"):
            decoder_weights(sae(), latent)
    with pytest.raises(StudyError, match="its atom is zero"):
        neighbours(sae(), 2)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "subject"
    config = GPT2Config(
        vocab_size=23, n_positions=8, n_embd=D, n_layer=3, n_head=2, initializer_range=0.3,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=[True, False], ids=["bos", "no-bos"])
def study(subject: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A study as `extract` leaves it; each split has the one document, which takes two rows."""
    artifacts = tmp_path / "artifacts"
    corpus = artifacts / "corpus"
    word_level(WORDS).save_pretrained(corpus / "tokenizer")
    n = len(DOCUMENT)
    np.save(corpus / "tokens.npy", np.tile(DOCUMENT, 3))
    splits = ["train", "calibration", "validation"]
    frame = pd.DataFrame(
        {"document": range(3), "start": [0, n, 2 * n], "length": n, "split": splits, "label": None}
    )
    frame.to_parquet(corpus / "documents.parquet")
    (artifacts / "subject").symlink_to(subject)
    settings = Extract(
        hooks=(HOOK,), context=8, n_tokens=n, n_calibration_tokens=n, n_validation_tokens=n,
        prepend_bos=request.param, dtype="float32", threads=1, untrained_hooks=(HOOK,),
    )  # fmt: skip
    inputs = Inputs(
        load_subject(subject), TokenDocuments.load(corpus), {},
        untrained=load_untrained(subject, weights_seed(0)),
    )  # fmt: skip
    extract(inputs, settings, seed=0, states=States(artifacts / "extract"))
    for stage in ("corpus", "subject", "extract"):
        seal(artifacts / stage)
    return tmp_path


@pytest.mark.parametrize("hook", [HOOK, f"untrained/{HOOK}"])
def test_a_text_gets_the_activations_that_the_study_extracts(study: Path, hook: str) -> None:
    words = [WORDS[i - 3] for i in DOCUMENT]
    tokens, x_td = activations_of(" ".join(words), study, hook=hook)
    assert tokens == words
    store = ActivationStore(study / "artifacts/extract")
    expected = store.activations(hook, "validation").whole()
    position = store.index("validation").whole()[:, 1]  # not a row's first, without BOS
    np.testing.assert_allclose(x_td.numpy()[position], expected, rtol=1e-5, atol=1e-5)
    assert sae().encode(x_td).shape == (len(DOCUMENT), K)
    reader = TextReader.of(study, hook)
    kept_t = reader.read(reader.ids(" ".join(words))).kept_t
    assert kept_t.nonzero().flatten().tolist() == position.tolist()


def test_words_the_tokenizer_lacks_and_hooks_the_model_lacks(study: Path) -> None:
    tokens, x_td = activations_of("a zebra b", str(study), hook="blocks.0.hook_mlp_out")
    assert tokens == ["a", "<unk>", "b"]
    assert x_td.shape == (3, D) and x_td.dtype == torch.float32
    for text, hook, says in (
        ("a", "blocks.7.hook_mlp_out", r"layers are 0 … 2"),
        ("a", "hook_embedding", "no such hook"),
        (" ", HOOK, "no token in it"),
    ):
        with pytest.raises(StudyError, match=says):
            activations_of(text, study, hook=hook)


def test_a_study_without_random_weights_says_so(study: Path) -> None:
    path = study / "artifacts/extract/manifest.json"
    write_json(path, {k: v for k, v in read_json(path).items() if k != "untrained"})
    seal(path.parent)
    with pytest.raises(StudyError, match=r"no extract\.untrained_hooks"):
        activations_of("a", study, hook=f"untrained/{HOOK}")


def test_a_study_that_has_not_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(StudyError, match=r"artifacts/corpus.*dvc repro"):
        activations_of("a", tmp_path, hook=HOOK)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(StudyError, match=r"elsewhere: no artifacts there; give the folder of a st"):
        activations_of("a", hook=HOOK)
