"""The stage corpus: formats, skipped and refused text, splits, tokenizers, the hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.corpus.sources import open_files, open_hub
from sae_repro.corpus.split import SPLITS, split_of
from sae_repro.corpus.tokenizers import byte_pairs, word_level
from sae_repro.corpus.writing import write_stories, write_texts
from sae_repro.errors import StudyError
from sae_repro.files import read_object, sha256_file, sha256_folder
from sae_repro.numerics.hashing import fingerprint
from sae_repro.params import Corpus, FilesSource, HubSource, LocalSubject, TrainedSubject
from sae_repro.pins import model_digest
from sae_repro.readers.documents import TokenDocuments

TRAINED = TrainedSubject(kind="train")
TEXTS = [f"the {animal} number {n} sat on a mat" for n in range(40) for animal in ("cat", "dog")]


def files(*paths: Path, **options: Any) -> Corpus:
    pinned = {path.name: sha256_file(path) for path in paths}
    source = {"kind": "files", "files": pinned, **options}
    return Corpus.model_validate(
        {"source": source, "validation": 0.2, "calibration": 0.1, "vocabulary": 300}
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., TokenDocuments]:
    """Writes artifacts/corpus from the files of a corpus and reads it back."""

    def run(corpus: Corpus, name: str = "corpus") -> TokenDocuments:
        folder = tmp_path / name
        folder.mkdir()
        write_texts(corpus, TRAINED, 0, folder, study=tmp_path)
        return TokenDocuments.load(folder)

    return run


def save(path: Path, texts: list[str]) -> Path:
    frame = pd.DataFrame({"text": texts, "n": range(len(texts)), "title": ["T"] * len(texts)})
    match path.suffix:
        case ".txt":
            path.write_text("\n\n".join(texts))
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        case ".csv":
            frame.to_csv(path, index=False)
        case _:
            frame.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_documents(
    suffix: str, tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    corpus = write(files(save(tmp_path / f"a.{suffix}", TEXTS)))
    tokenizer = corpus.tokenizer()
    found = [tokenizer.decode(corpus.document(i)) for i in range(len(corpus.documents))]
    assert found == TEXTS
    assert sum(len(corpus.split(split)) for split in SPLITS) == len(TEXTS)


def test_columns_are_joined_and_the_label_is_kept(
    tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    path = save(tmp_path / "a.csv", TEXTS)
    corpus = write(files(path, columns=["title", "text"], label="n"))
    assert corpus.tokenizer().decode(corpus.document(3)) == "T\n" + TEXTS[3]
    assert corpus.documents["label"].tolist() == [str(n) for n in range(len(TEXTS))]


def test_duplicates_are_counted_and_share_a_split(
    tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    corpus = write(files(save(tmp_path / "a.jsonl", TEXTS * 3)))
    splits = corpus.documents["split"].to_numpy().reshape(3, -1)
    assert (splits == splits[0]).all()
    assert json.loads((corpus.folder / "corpus.json").read_text())["duplicates"] == 2 * len(TEXTS)


def test_empty_and_one_token_documents_are_skipped_and_counted(
    tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    corpus = write(files(save(tmp_path / "a.parquet", ["", *TEXTS, "  ", "x"])))
    summary = json.loads((corpus.folder / "corpus.json").read_text())
    assert summary["skipped"] == {"empty": 2, "one_token": 1}
    assert len(corpus.documents) == len(TEXTS)


def test_the_tokenizer_has_seen_training_documents_only(
    tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    """A word of held-out documents must not become a token of its own."""
    path = save(tmp_path / "a.jsonl", TEXTS)
    held_out = [t for t in TEXTS if split_of(fingerprint(t.encode(), 0), files(path)) != "train"]
    trained_on = write(files(path)).tokenizer()
    alone = byte_pairs((t for t in TEXTS if t not in held_out), 300)
    assert trained_on.get_vocab() == alone.get_vocab()
    assert alone.get_vocab() != byte_pairs(TEXTS, 300).get_vocab() or not held_out


def refused(corpus: Corpus, folder: Path) -> str:
    out = folder / "out"
    out.mkdir()
    with pytest.raises(StudyError) as caught:
        write_texts(corpus, TRAINED, 0, out, study=folder)
    return str(caught.value)


def test_missing_column_names_those_there_are(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", TEXTS)
    assert "body: a.csv has no such column; it has text, n, title" in refused(
        files(path, columns=["body"]), tmp_path
    )


def test_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    """In csv everything is text, in the other formats numbers are not."""
    path = save(tmp_path / "a.parquet", TEXTS)
    assert "columns = n: a.parquet holds int64, not text" in refused(
        files(path, columns=["n"]), tmp_path
    )


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
def test_not_utf8_names_the_line(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"text\nfine\ncaf\xe9 au lait\n")
    assert "not UTF-8 (line 3, byte 4 of it)" in refused(files(path), tmp_path)


def test_broken_json_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": \n')
    message = refused(files(path), tmp_path)
    assert message.startswith("corpus.source.files: a.jsonl: ")
    assert "\n" not in message


def test_fewer_documents_than_n_documents_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", TEXTS)
    assert "n_documents = 999: a.jsonl has only 80 documents" in refused(
        files(path, n_documents=999), tmp_path
    )


def test_n_documents_limits_the_corpus(
    tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    assert len(write(files(save(tmp_path / "a.jsonl", TEXTS), n_documents=60)).documents) == 60


def test_empty_missing_and_changed_files(tmp_path: Path) -> None:
    path = save(tmp_path / "a.txt", TEXTS)
    corpus = files(path)
    path.write_text("something else")
    (tmp_path / "out").mkdir()
    for change, message in (
        (lambda: None, "has changed"),
        (lambda: path.write_text(""), "is empty"),
        (path.unlink, "is missing"),
    ):
        change()
        with pytest.raises(StudyError, match=message):
            write_texts(corpus, TRAINED, 0, tmp_path / "out", study=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "text\na 1 b 2\nc 3 d 4\n", "corpus: 2 documents leave none for"),
        ("a.csv", "text\n" + "the same text\n" * 50,
         "50 documents; 49 of them copies of others, which share a split leave none"),
        ("a.csv", "text\n" + "the same text\n" * 50, "give more documents that differ"),
        ("a.csv", "text,b\n" + ",1\n" * 9 + "a 1 b,1\n", "1 document; 9 rows without text left"),
        ("a.csv", "text,b\n" + ",1\n" * 9 + "a 1 b,1\n", "check corpus.source.columns"),
        ("a.csv", "text\n" + "x\n" * 9 + "one two\n", "9 rows of one token left out"),
        ("a.txt", "one line\n" * 500, "no blank line, so that it is one document: put one between"),
        ("a.txt", "one line\n" * 500, "sed G FILE > NEW"),
    ],
)  # fmt: skip
def test_a_split_that_stays_empty_is_refused_with_what_was_found(
    name: str, content: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    assert says in refused(files(tmp_path / name), tmp_path)


def test_a_documents_row_is_its_place_in_the_files(
    tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    """Over all files, in the order of params.yaml, also where rows were left out before it."""
    first = save(tmp_path / "b.jsonl", ["", *TEXTS[:40], "x"])
    corpus = write(files(first, save(tmp_path / "a.jsonl", ["", *TEXTS[40:]])))
    assert corpus.documents["row"].tolist() == [*range(1, 41), *range(43, 83)]
    assert corpus.tokenizer().decode(corpus.document(40)) == TEXTS[40]


CORPUS = Corpus.model_validate({"source": {"kind": "stories", "n_documents": 100}})


@given(st.lists(st.binary(min_size=1), min_size=1), st.randoms())
@settings(max_examples=50, deadline=None)
def test_a_documents_split_does_not_depend_on_its_companions(
    contents: list[bytes], random: Any
) -> None:
    splits = {c: split_of(fingerprint(c, 0), CORPUS) for c in contents}
    random.shuffle(contents)
    assert all(split_of(fingerprint(c, 0), CORPUS) == splits[c] for c in contents)


def test_split_fractions_match_the_settings_and_follow_the_seed() -> None:
    documents = [str(n).encode() for n in range(20_000)]
    by_seed = [[split_of(fingerprint(d, seed), CORPUS) for d in documents] for seed in (0, 1)]
    assert by_seed[0].count("validation") / 20_000 == pytest.approx(0.1, abs=0.01)
    assert by_seed[0].count("calibration") / 20_000 == pytest.approx(0.02, abs=0.005)
    assert by_seed[0] != by_seed[1]


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1, max_size=300))
@settings(max_examples=50, deadline=None)
def test_tuning_documents_come_out_of_training_alone(contents: list[bytes]) -> None:
    """Copies of a text share a split, and no measured or calibrated number changes."""
    tuning = CORPUS.model_copy(update={"tuning": 0.3})
    parts: dict[str, set[bytes]] = {}
    for content in contents:
        mark = fingerprint(content, 0)
        before, after = split_of(mark, CORPUS), split_of(mark, tuning)
        assert after == before or (before, after) == ("train", "tuning")
        parts.setdefault(after, set()).add(content)
    assert sum(map(len, parts.values())) == len(set(contents))


def test_the_corpus_has_tuning_documents_where_asked_for(
    tmp_path: Path, write: Callable[..., TokenDocuments]
) -> None:
    texts = TEXTS + TEXTS[:30]
    plain = files(save(tmp_path / "a.jsonl", texts))
    corpus = write(plain.model_copy(update={"tuning": 0.2}))
    held_out = {split: {corpus.document(i).tobytes() for i in corpus.split(split)}
                for split in (*SPLITS, "tuning")}  # fmt: skip
    assert all(held_out.values())
    assert sum(map(len, held_out.values())) == len(TEXTS)
    assert set(read_object(corpus.folder / "corpus.json")["tokens"]) == {*SPLITS, "tuning"}
    with pytest.raises(StudyError, match=r"none for tuning; .*corpus\.tuning 1e-09"):
        write(plain.model_copy(update={"tuning": 1e-9}), "empty")
    with pytest.raises(ValueError, match=r"validation \+ calibration \+ tuning must be < 1"):
        Corpus.model_validate(plain.model_dump() | {"tuning": 0.7})


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_byte_pairs_give_every_text_back(text: str) -> None:
    tokenizer = byte_pairs(TEXTS, 300)
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text


def test_special_ids_and_vocabulary_of_a_word_level_tokenizer() -> None:
    tokenizer = word_level(["a", "b"])
    assert [tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id] == [0, 1, 2]
    assert tokenizer.encode("b a c", add_special_tokens=False) == [4, 3, 0]


def test_stories_come_with_their_labels(tmp_path: Path) -> None:
    corpus = Corpus.model_validate({"source": {"kind": "stories", "n_documents": 300}})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_stories(corpus, corpus.source, 0, tmp_path / name)
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")
    documents = TokenDocuments.load(tmp_path / "one")
    assert documents.documents["row"].equals(documents.documents["document"].rename("row"))
    labels = np.load(tmp_path / "one" / "labels.npy")
    concepts = json.loads((tmp_path / "one" / "concepts.json").read_text())
    assert len(labels) == len(documents.tokens)
    bits = np.unpackbits(labels, axis=1, count=len(concepts), bitorder="little").astype(bool)
    quote = documents.tokenizer().convert_tokens_to_ids('"')
    marks = bits[:, [c["name"] for c in concepts].index("punctuation")]
    assert marks[documents.tokens == quote].all()


HUB = {"kind": "hub", "name": "someone/texts", "revision": "a" * 40}


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(StudyError, match=r"someone/texts .* can't be reached .*HF_ENDPOINT"):
        open_hub(HubSource.model_validate(HUB))


def test_the_pinned_commit_is_requested_from_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> datasets.Dataset:
        requests.append((args, options))
        return datasets.Dataset.from_dict({"text": TEXTS, "kind": ["x"] * len(TEXTS)})

    monkeypatch.setattr("sae_repro.corpus.sources.reachable", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = HubSource.model_validate(
        {**HUB, "config": "plain", "split": "train[:10%]", "label": "kind", "n_documents": 7}
    )
    documents = list(open_hub(source))
    assert [d.text for d in documents] == TEXTS[:7]
    assert documents[0].label == "x"
    assert requests == [
        (
            ("someone/texts",),
            {"name": "plain", "split": "train[:10%]", "revision": "a" * 40, "streaming": False},
        )
    ]


def test_real_news_from_two_columns(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/ag_news/test.csv"
    source = FilesSource(
        kind="files",
        files={str(path): sha256_file(path)},
        columns=("title", "description"),
        label="label",
    )
    corpus = Corpus(source=source, vocabulary=2000)
    write_texts(corpus, TRAINED, 0, tmp_path, study=tmp_path)
    documents = TokenDocuments.load(tmp_path)
    frame = pd.read_csv(path)
    assert len(documents.documents) == len(frame) == 7600
    text = f"{frame['title'][17]}\n{frame['description'][17]}"
    assert documents.tokenizer().decode(documents.document(17)) == text
    assert documents.documents["label"][17] == str(frame["label"][17])


def test_real_stories_with_the_models_own_tokenizer(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text, model = shared / "data/tinystories/samples.jsonl", shared / "models/stories260k"
    source = FilesSource(kind="files", files={str(text): sha256_file(text)}, n_documents=200)
    subject = LocalSubject(kind="local", path=str(model), sha256=model_digest(model))
    write_texts(Corpus(source=source), subject, 0, tmp_path, study=tmp_path)
    documents = TokenDocuments.load(tmp_path)
    own = AutoTokenizer.from_pretrained(model)
    rows = [json.loads(line)["text"] for line in text.read_text().splitlines()[:200]]
    for number in (0, 57, 199):
        ids = own(rows[number], add_special_tokens=False)["input_ids"]
        assert documents.document(number).tolist() == ids


def test_open_files_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    corpus = files(tmp_path / "a.pdf")
    with pytest.raises(StudyError, match=r"\.pdf can't be read; allowed are"):
        open_files(corpus.source, tmp_path)
