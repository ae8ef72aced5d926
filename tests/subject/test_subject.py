"""The stage subject: models trained to the bit, copied or downloaded; broken ones refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.corpus import run as run_corpus
from sae_repro.corpus.tokenizers import word_level
from sae_repro.errors import StudyError
from sae_repro.params import HubSubject, LocalSubject, Training
from sae_repro.pins import check_model, model_digest
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.subject import load_subject
from sae_repro.stage import CHECKOUT, StageContext
from sae_repro.subject import run as run_subject
from sae_repro.subject.download import download
from sae_repro.subject.gpt2 import schedule, train_subject

SETTINGS = Training(
    d_model=16, n_layers=1, n_heads=2, context=12, steps=30, batch_size=16, threads=1
)


@pytest.fixture
def corpus(tmp_path: Path) -> TokenDocuments:
    """Documents that count upwards: what comes next is certain."""
    word_level([chr(97 + i) for i in range(20)]).save_pretrained(tmp_path / "tokenizer")
    rng = np.random.default_rng(0)
    documents = [3 + (rng.integers(20) + np.arange(rng.integers(4, 18))) % 20 for _ in range(300)]
    lengths = np.array(list(map(len, documents)))
    frame = pd.DataFrame(
        {"start": np.cumsum(lengths) - lengths, "length": lengths,
         "split": np.where(np.arange(300) < 250, "train", "validation")}
    )  # fmt: skip
    return TokenDocuments(tmp_path, np.concatenate(documents).astype(np.int32), frame)


def weights(model: torch.nn.Module) -> bytes:
    return b"".join(t.detach().numpy().tobytes() for t in model.state_dict().values())


def test_same_seed_same_bits_and_no_global_generator(corpus: TokenDocuments) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = weights(train_subject(corpus, SETTINGS, seed=0)[0])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    assert weights(train_subject(corpus, SETTINGS, seed=0)[0]) == first
    assert weights(train_subject(corpus, SETTINGS, seed=1)[0]) != first


def test_training_learns_deterministic_continuations(corpus: TokenDocuments) -> None:
    longer = SETTINGS.model_copy(update={"steps": 250})
    model, facts = train_subject(corpus, longer, seed=0)
    assert facts["training_loss"] < 1.0
    with torch.no_grad():
        logits = model(torch.tensor([[1, 3, 4, 5, 6]])).logits[0]
    assert logits[1:].argmax(-1).tolist() == [4, 5, 6, 7]


def test_subject_trains_on_training_documents_only(corpus: TokenDocuments) -> None:
    changed = corpus.tokens.copy()
    start = corpus.documents["start"].to_numpy()[250]
    changed[start:] = 3
    other = TokenDocuments(corpus.folder, changed, corpus.documents)
    a, b = (weights(train_subject(c, SETTINGS, seed=0)[0]) for c in (corpus, other))
    assert a == b


def test_schedule_warms_up_and_falls_to_a_tenth() -> None:
    shares = [schedule(step, SETTINGS.model_copy(update={"steps": 200})) for step in range(200)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[9] == 1.0
    assert shares[-1] == pytest.approx(0.1, abs=0.01)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    config = GPT2Config(vocab_size=23, n_positions=12, n_embd=16, n_layer=2, n_head=2,
                        bos_token_id=1, eos_token_id=1)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    word_level([chr(97 + i) for i in range(20)]).save_pretrained(folder)
    return folder


def test_the_loader_gives_transformers_own_logits(model_folder: Path) -> None:
    bridge = load_subject(model_folder)
    tokens = torch.tensor([[1, 5, 7, 9]])
    with torch.no_grad():
        theirs = GPT2LMHeadModel.from_pretrained(model_folder).eval()(tokens).logits
        torch.testing.assert_close(bridge(tokens), theirs, rtol=1e-4, atol=1e-5)


def test_a_local_model_is_pinned_and_has_safetensors(model_folder: Path) -> None:
    source = LocalSubject(kind="local", path="model", sha256=model_digest(model_folder))
    assert check_model(source, model_folder.parent) == model_folder
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(StudyError, match=r"no \*\.safetensors"):
        check_model(source, model_folder.parent)
    (model_folder / "pytorch_model.bin").rename(model_folder / "model.safetensors")
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(json.dumps(config | {"n_ctx": 1}))
    with pytest.raises(StudyError, match="has changed"):
        check_model(source, model_folder.parent)


HUB = HubSubject(kind="hub", name="someone/model", revision="c" * 40, d_model=16, n_layers=2)


def test_an_unreachable_hub_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(StudyError, match=r"someone/model at c+: the hub .* can't be reached"):
        download(HUB, tmp_path)


def test_only_safetensors_of_the_pinned_commit_are_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_folder: Path
) -> None:
    import huggingface_hub

    requests: list[Any] = []

    def snapshot_download(name: str, **options: Any) -> str:
        requests.append((name, options))
        return str(model_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    out = tmp_path / "out"
    out.mkdir()
    assert download(HUB, out) == {"name": "someone/model", "commit": "c" * 40}
    ((name, options),) = requests
    assert (name, options["revision"]) == ("someone/model", "c" * 40)
    assert not any(p.endswith((".bin", ".pt", ".py", "*")) and p != "tokenizer*"
                   for p in options["allow_patterns"])  # fmt: skip
    load_subject(out)
    with pytest.raises(StudyError, match=r"d_model = 32: the model has 16"):
        download(HUB.model_copy(update={"d_model": 32}), out)


def test_a_missing_model_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="dvc repro subject"):
        load_subject(tmp_path)


def test_stories_longer_than_the_subject_are_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gates fail, as no subject of one step passes them; nothing else does."""
    monkeypatch.chdir(tmp_path)
    declared = {
        "seed": 0,
        "corpus": {"source": {"kind": "stories", "n_documents": 100}},
        "subject": {"source": {"kind": "train"}},
    }
    run_corpus(StageContext("corpus", declared, CHECKOUT))
    training = {"d_model": 4, "n_layers": 1, "n_heads": 1, "context": 8, "steps": 1, "threads": 1}
    declared["subject"] |= {"training": training}
    with pytest.raises(StudyError, match="has not learnt what the study needs"):
        run_subject(StageContext("subject", declared, CHECKOUT))
