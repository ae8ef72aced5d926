"""A local model as a judge: the endpoint, and the tables of the recorded answers."""

import importlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sae_repro.judge import Prompt, Question, Sampling
from sae_repro.judge.backends.http import HttpBackend
from sae_repro.params import Judge

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def of() -> Iterator[Any]:
    """A module of benchmarks/ by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random chat model."""
    path = tmp_path_factory.mktemp("model")
    words = ["<unk>", "<end>", "user", "judge", ":", "0", "1", "cat", "dog", "a", "the", "?"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    )
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}judge :"
    )
    fast.save_pretrained(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                vocab_size=len(words), max_position_embeddings=40, initializer_range=0.5,
                bos_token_id=None, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
    model.save_pretrained(path)
    return path


@pytest.fixture
def url(of: Any, folder: Path) -> Iterator[str]:
    """An endpoint that answers up to three requests together."""
    module = of("judge_server")
    server = module.server(module.FolderModel(folder, "tiny"), 0, batch=3)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def settings(url: str, **changes: Any) -> Judge:
    given = {"kind": "http", "model": "tiny", "base_url": url, "requests_per_minute": 600_000,
             "max_tokens": 8, "attempts": 1, "cut_off": "unparsable"}  # fmt: skip
    return Judge(**{**given, **changes})


def asked(sampling: Sampling) -> list[Question]:
    texts = ["a cat ?", "the dog ?", "a cat the cat", "dog dog dog a ?", "?", "the the"]
    return [Question(Prompt("label", 1, text), sampling) for text in texts]


def greedy(folder: Path, text: str, n: int) -> list[int]:
    """The next tokens by whole forward passes, one for each: no cache, padding or batch."""
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids: list[int] = tokenizer.encode(f"user : {text} judge :")
    start = len(ids)
    while len(ids) < start + n and (len(ids) == start or ids[-1] != 1):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[start:]


def test_the_endpoint_says_what_the_model_finds_likeliest(
    url: str, folder: Path, tmp_path: Path
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    said = [(q, greedy(folder, q.prompt.text, 8)) for q in asked(Sampling(0.0, 8))]
    # an answer without a word ends the run
    questions, expected = zip(*[(q, ids) for q, ids in said if ids[0] > 1], strict=True)
    assert len(questions) > 2
    answers = HttpBackend(settings(url), tmp_path / "answers.jsonl").answer(questions)
    assert [a.text for a in answers] == [
        tokenizer.decode(ids, skip_special_tokens=True) for ids in expected
    ]
    assert [answer.cut for answer in answers] == [ids[-1] != 1 for ids in expected]
    assert len({answer.text for answer in answers}) > 1


def test_a_sample_is_the_same_for_the_same_seed(url: str, tmp_path: Path) -> None:
    def sampled(seed: int, record: str) -> list[str]:
        # one at a time: a sample depends on its batch
        judge = settings(url, model="tiny:01", in_flight=1, temperature=2)
        backend = HttpBackend(judge, tmp_path / record)
        return [answer.text for answer in backend.answer(asked(Sampling(2.0, 8, seed)))]

    assert sampled(1, "a") == sampled(1, "b") != sampled(2, "c")


def test_a_model_with_choices_says_the_likelier_one(url: str, folder: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    questions = asked(Sampling(0.0, 8))
    answers = HttpBackend(settings(url, model="tiny:01"), tmp_path / "a").answer(questions)
    for answer, question in zip(answers, questions, strict=True):
        ids = tokenizer.encode(f"user : {question.prompt.text} judge :")
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        zero, one = (float(logits[tokenizer.convert_tokens_to_ids(c)]) for c in "01")
        assert (answer.text, answer.cut) == ("1" if one > zero else "0", False)


MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": MESSAGES, "tools": []}, 400, "tools"),
        ({"messages": MESSAGES, "max_tokens": 0}, 400, "max_tokens"),
        ({"messages": MESSAGES, "max_tokens": 40}, 400, "context too long"),
        ({"messages": MESSAGES, "model": "other"}, 404, "no model other here, only tiny"),
        ({"messages": MESSAGES, "model": "tiny:0é"}, 400, "no single token"),
        ([], 400, ""),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_in_words(
    url: str, request_: Any, status: int, says: str
) -> None:
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"{url}/chat/completions", json.dumps(request_).encode()), timeout=30)
    assert caught.value.code == status
    assert says in json.load(caught.value)["error"]["message"]


def test_the_endpoint_names_its_model(url: str) -> None:
    with urlopen(f"{url}/models", timeout=30) as response:
        assert [model["id"] for model in json.load(response)["data"]] == ["tiny"]


FLAGS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


@given(FLAGS)
@hypothesis.settings(deadline=None)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_kappa_is_that_of_another_library(of: Any, pairs: Sequence[tuple[int, int]]) -> None:
    module = of("judge_agreement")
    a, b = zip(*pairs, strict=True)
    found = module.kappa(np.array([module.counts(a, b)], dtype=np.float64))[0]
    with np.errstate(invalid="ignore"):
        expected = cohen_kappa_score(a, b, labels=[0, 1])
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_recorded_answers_give_the_recorded_tables(of: Any) -> None:
    for path, content in of("weak_judge").tables().items():
        assert path.read_text(encoding="utf-8") == content, path.name
