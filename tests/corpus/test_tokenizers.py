"""The study's tokenizer: documents stay whole, models bring no code, folders load again."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.errors import HTTPError
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from sae_repro.corpus.tokenizers import byte_pairs, word_level
from sae_repro.corpus.writing import write_texts
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file, sha256_folder
from sae_repro.params import Corpus, HubSubject, LocalSubject, TrainedSubject
from sae_repro.pins import model_digest
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.tokenizer import pretrained

TEXTS = [f"the {animal} number {n} sat on a mat" for n in range(40) for animal in ("cat", "dog")]
LONG = " ".join(TEXTS)
HUB = HubSubject(kind="hub", name="someone/model", revision="a" * 40, d_model=8, n_layers=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that pins as a model does, with a tokenizer of its own."""
    folder = tmp_path / "model"
    byte_pairs(TEXTS, 300).save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    save_file({"weight": np.ones(2, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def pinned(model: Path) -> LocalSubject:
    return LocalSubject(kind="local", path=model.name, sha256=model_digest(model))


def corpus_of(path: Path) -> Corpus:
    source = {"kind": "files", "files": {path.name: sha256_file(path)}}
    return Corpus.model_validate(
        {"source": source, "validation": 0.2, "calibration": 0.1, "vocabulary": 300}
    )


def texts(folder: Path) -> Path:
    path = folder / "a.txt"
    path.write_text("\n\n".join([*TEXTS, LONG]))
    return path


def test_documents_stay_whole_under_a_tokenizer_that_truncates_and_pads(
    model: Path, tmp_path: Path
) -> None:
    path = model / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    backend.enable_truncation(8)
    backend.enable_padding(length=32, pad_id=2, pad_token="<pad>")
    backend.save(str(path))
    (tmp_path / "out").mkdir()
    write_texts(corpus_of(texts(tmp_path)), pinned(model), 0, tmp_path / "out", study=tmp_path)
    corpus = TokenDocuments.load(tmp_path / "out")
    tokenizer = corpus.tokenizer()
    found = [tokenizer.decode(corpus.document(i)) for i in range(len(corpus.documents))]
    assert found == [*TEXTS, LONG]


def test_a_models_own_code_is_never_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (model / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    with pytest.raises(StudyError, match=r"custom code .* need no code of its own"):
        pretrained(pinned(model), tmp_path)
    assert not ran.exists()


def test_a_tokenizer_without_fast_form_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(StudyError, match=r"ByT5Tokenizer has no fast form; .*tokenizer\.json"):
        pretrained(pinned(model), tmp_path)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_missing_or_damaged_tokenizer_is_a_clear_error(
    content: str | None, model: Path, tmp_path: Path
) -> None:
    (model / "tokenizer_config.json").unlink()
    if content is None:
        (model / "tokenizer.json").unlink()
    else:
        (model / "tokenizer.json").write_text(content)
    with pytest.raises(StudyError, match=r"^subject\.source\.path: .*tokenizer\.json"):
        pretrained(pinned(model), tmp_path)


def test_error_without_the_hub_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(StudyError, match=r"tokenizer of someone/model .*HF_ENDPOINT.*kind: local"):
        pretrained(HUB, Path())


def test_a_time_out_is_an_error_of_the_hub_not_of_the_tokenizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def from_nowhere(name: str, *, local_files_only: bool = False, **options: object) -> None:
        raise OSError("not in the cache") if local_files_only else HTTPError("timed out")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_nowhere)
    monkeypatch.setattr("sae_repro.readers.tokenizer.reachable", lambda what: None)
    with pytest.raises(StudyError, match=r"can't be reached \(timed out\)"):
        pretrained(HUB, Path())


def test_the_folder_is_the_same_whether_the_cache_was_full_or_not(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, requests = AutoTokenizer.from_pretrained, []

    def from_folder(name: str, *, revision: str, **options: object) -> object:
        requests.append((name, revision, options))
        if len(requests) == 1:
            raise OSError("not in the cache")
        return read(model, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_folder)
    monkeypatch.setattr("sae_repro.readers.tokenizer.reachable", lambda what: None)
    for run in ("downloaded", "cached"):
        pretrained(HUB, Path()).save_pretrained(tmp_path / run)
    assert sha256_folder(tmp_path / "downloaded") == sha256_folder(tmp_path / "cached")
    assert {call[:2] for call in requests} == {("someone/model", "a" * 40)}
    assert all(call[2]["trust_remote_code"] is False for call in requests)


@pytest.mark.parametrize("kind", ["byte pairs", "words"])
def test_trained_tokenizers_load_again_with_their_special_tokens(kind: str, tmp_path: Path) -> None:
    made = byte_pairs(TEXTS, 300) if kind == "byte pairs" else word_level(["cat", "mat", "sat"])
    made.save_pretrained(tmp_path)
    found = AutoTokenizer.from_pretrained(tmp_path)
    special = [found.unk_token_id, found.bos_token_id, found.eos_token_id, found.pad_token_id]
    assert special == [0, 1, 1, 2]
    assert found.get_vocab() == made.get_vocab()
    assert found.decode(found.encode("cat sat", add_special_tokens=False)) == "cat sat"


def test_tokenizer_trained_twice_has_the_same_bytes(tmp_path: Path) -> None:
    corpus = corpus_of(texts(tmp_path))
    hashes = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_texts(corpus, TrainedSubject(kind="train"), 0, tmp_path / name, study=tmp_path)
        hashes.add(sha256_folder(tmp_path / name))
    assert len(hashes) == 1


def test_every_real_story_has_the_models_own_ids(shared: Path, tmp_path: Path) -> None:
    """All of the first 2,000, against the tokenizer called directly."""
    text, model = shared / "data/tinystories/samples.jsonl", shared / "models/stories260k"
    rows = [json.loads(line)["text"] for line in text.read_text().splitlines()[:2000]]
    source = {"kind": "files", "files": {str(text): sha256_file(text)}, "n_documents": len(rows)}
    subject = LocalSubject(kind="local", path=str(model), sha256=model_digest(model))
    write_texts(Corpus.model_validate({"source": source}), subject, 0, tmp_path, study=tmp_path)
    corpus = TokenDocuments.load(tmp_path)
    own = AutoTokenizer.from_pretrained(model)
    ids = own(rows, add_special_tokens=False, verbose=False)["input_ids"]
    assert np.array_equal(corpus.tokens, np.concatenate(ids))
    assert corpus.documents["length"].tolist() == [len(i) for i in ids]
