"""The concept bank, every kind against what one would say of each token by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_repro.concepts import bank as concepts
from sae_repro.concepts.bank import ConceptBank, check_without_surface, load_bank
from sae_repro.concepts.halves import in_fit
from sae_repro.concepts.surface import frequency_classes, looks_of, texts_of, training_counts
from sae_repro.corpus.writing import write_stories, write_texts
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.params import Corpus, StoriesSource, TrainedSubject
from sae_repro.readers.documents import TokenDocuments
from sae_repro.stories import generator as stories

Load = Callable[..., ConceptBank]


def index_of(corpus: TokenDocuments, seed: int | None = None) -> np.ndarray:
    """All validation tokens, as the store's index has them; `seed` shuffles them."""
    rows = [
        (d, p, int(token))
        for d in corpus.split("validation").tolist()
        for p, token in enumerate(corpus.document(d))
    ]
    index = np.array(rows, dtype=np.int32)
    return index if seed is None else np.random.default_rng(seed).permutation(index)


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concepts, "LEAST", 3)


@pytest.fixture(scope="module")
def story_corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenDocuments:
    folder = tmp_path_factory.mktemp("stories")
    source = StoriesSource(kind="stories", n_documents=400)
    write_stories(Corpus(source=source, validation=0.3), source, 1, folder)
    return TokenDocuments.load(folder)


SENTENCES = ["The cat sat on 12 mats. I saw NASA fly!", "Anna and Tom ran (fast) to the PARK...",
             "A dog's tail, number {n}, wagged twice at the lake."]  # fmt: skip


@pytest.fixture(scope="module")
def text_corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenDocuments:
    study = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    with (study / "a.jsonl").open("w") as file:
        for n in range(200):
            text = " ".join(SENTENCES[i].format(n=n) for i in rng.integers(0, 3, 3))
            file.write(json.dumps({"text": text, "topic": f"t{n % 2}"}) + "\n")
    pins = {"a.jsonl": sha256_file(study / "a.jsonl")}
    corpus = Corpus.model_validate(
        {"source": {"kind": "files", "files": pins, "label": "topic"}, "validation": 0.3,
         "vocabulary": 320}
    )  # fmt: skip
    folder = study / "corpus"
    folder.mkdir()
    write_texts(corpus, TrainedSubject(kind="train"), 0, folder, study=study)
    return TokenDocuments.load(folder)


def rows_of(bank: ConceptBank, name: str) -> set[tuple[int, int]]:
    rows = bank.labels[:, [bank.names.index(name)]].nonzero()[0]
    return set(zip(bank.document[rows].tolist(), bank.position[rows].tolist(), strict=True))


def compare(bank: ConceptBank, expected: dict[str, set[tuple[int, int]]]) -> None:
    """Each concept where it is expected, and those with too few rows in a half left out."""
    fit = {
        (d, p): f
        for d, p, f in zip(bank.document.tolist(), bank.position.tolist(), bank.fit, strict=True)
    }
    kept = set()
    for name, where in expected.items():
        halves = [sum(fit[at] == half for at in where) for half in (True, False)]
        sizes = [int((bank.fit == half).sum()) for half in (True, False)]
        enough = all(3 <= n <= size - 3 for n, size in zip(halves, sizes, strict=True))
        assert (name in bank.names) == enough, name
        if enough:
            kept.add(name)
            assert rows_of(bank, name) == where, name
    assert set(bank.names) == kept
    assert len(bank.names) == len(kept)
    assert sum(bank.left_out.values()) == len(expected) - len(kept)


def test_stories_against_their_labels(story_corpus: TokenDocuments) -> None:
    index = index_of(story_corpus)
    known = stories.concepts()
    bits = np.unpackbits(stories.generate(400, 1).labels, axis=1, count=len(known),
                         bitorder="little")  # fmt: skip
    start = story_corpus.documents["start"].to_numpy()
    parent = {c.name: c.parent for c in known}
    expected: dict[str, set[tuple[int, int]]] = {}
    for token in np.unique(index[:, 2]).tolist():
        piece = story_corpus.tokenizer().convert_ids_to_tokens(token)
        expected[f"token:{piece}"] = {(d, p) for d, p, t in index.tolist() if t == token}
    for concept in known:
        expected[concept.name] = set()
        if concept.kind == "class":
            for shift in ("previous", "next"):
                expected[f"{shift}:{concept.name}"] = set()
    for d, p, _ in index.tolist():
        for by, prefix in ((0, ""), (-1, "previous:"), (1, "next:")):
            if not 0 <= p + by < len(story_corpus.document(d)):
                continue
            for number in np.flatnonzero(bits[start[d] + p + by]):
                name: str | None = known[number].name
                if by and known[number].kind == "state":
                    continue
                while name is not None:
                    expected[prefix + name].add((d, p))
                    name = parent[name]
    compare(load_bank(story_corpus.folder, index, 0), expected)


def test_surface_concepts_against_a_reading_by_hand(text_corpus: TokenDocuments) -> None:
    index = index_of(text_corpus)
    tokenizer = text_corpus.tokenizer()
    texts = [tokenizer.decode([i]) for i in range(len(tokenizer))]  # byte-level: spaces are kept
    train = np.concatenate([text_corpus.document(d) for d in text_corpus.split("train")])
    counts = np.bincount(train, minlength=len(tokenizer))
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], i))
    seen = int((counts > 0).sum())
    label = text_corpus.documents["label"]

    def concepts_of(token: int) -> set[str]:
        text = texts[token]
        bare, carried = text.strip(), set()
        letters = "".join(c for c in bare if c.isalpha())
        if letters and letters == letters.lower():
            carried.add("casing:lower")
        if len(letters) > 1 and letters == letters.upper():
            carried.add("casing:UPPER")
        elif letters and letters == letters.capitalize():
            carried.add("casing:Capitalised")
        if any(c in "0123456789" for c in bare):
            carried.add("digits")
        if bare and not any(c.isalnum() for c in bare):
            carried.add("punctuation")
        if bare and bare[0].isalnum():
            carried.add("word:starts" if text[0] == " " else "word:continues")
        rank = order.index(token)
        share = "top 1 %" if rank < 0.01 * seen else "1–10 %" if rank < 0.1 * seen else "rest"
        return carried | {f"frequency:{share}"}

    kinds = ["casing:lower", "casing:UPPER", "casing:Capitalised", "digits", "punctuation",
             "word:starts", "word:continues", "frequency:top 1 %", "frequency:1–10 %",
             "frequency:rest"]  # fmt: skip
    expected: dict[str, set[tuple[int, int]]] = {
        prefix + kind: set() for kind in kinds for prefix in ("", "previous:", "next:")
    }
    expected |= {f"position:{p}": set() for p in ("first", "first tenth", "last tenth")}
    expected |= {"document:t0": set(), "document:t1": set()}
    for d, p, token in index.tolist():
        here, n = (d, p), len(text_corpus.document(d))
        piece = tokenizer.convert_ids_to_tokens(token)
        expected.setdefault(f"token:{piece}", set()).add(here)
        for by, prefix in ((0, ""), (-1, "previous:"), (1, "next:")):
            if 0 <= p + by < n:
                for name in concepts_of(int(text_corpus.document(d)[p + by])):
                    expected[prefix + name].add(here)
        if p == 0:
            expected["position:first"].add(here)
        if p / n < 0.1:
            expected["position:first tenth"].add(here)
        if p / n >= 0.9:
            expected["position:last tenth"].add(here)
        expected[f"document:{label[d]}"].add(here)
    compare(load_bank(text_corpus.folder, index, 0), expected)


def test_a_bank_without_surface_keeps_what_the_text_or_its_source_says(
    story_corpus: TokenDocuments, text_corpus: TokenDocuments
) -> None:
    kinds = {}
    for name, corpus in (("stories", story_corpus), ("text", text_corpus)):
        index = index_of(corpus)
        whole, bare = (load_bank(corpus.folder, index, 0, surface=s) for s in (True, False))
        kept = [i for i, concept in enumerate(whole.names) if concept in set(bare.names)]
        assert [whole.names[i] for i in kept] == list(bare.names)
        assert (whole.labels[:, kept] != bare.labels).nnz == 0
        assert np.array_equal(whole.fit, bare.fit)
        kinds[name] = set(whole.kinds) - set(bare.kinds), set(bare.kinds)
    assert kinds["stories"] == ({"token"}, {"class", "state", "previous", "next"})
    surface = {"token", "look", "frequency", "position", "previous", "next"}
    assert kinds["text"] == (surface, {"document"})


def test_a_text_of_surface_alone_is_refused(text_corpus: TokenDocuments, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(text_corpus.folder, folder)
    frame = pd.read_parquet(folder / "documents.parquet")
    frame["label"] = pd.Series([None] * len(frame), dtype="str")
    frame.to_parquet(folder / "documents.parquet")
    for refuse in (
        lambda: check_without_surface(folder, None),
        lambda: load_bank(folder, index_of(text_corpus), 0, surface=False),
    ):
        with pytest.raises(StudyError, match=r"evaluate\.surface: false leaves no concept"):
            refuse()
    check_without_surface(text_corpus.folder, None)


def test_shifts_stop_at_the_edges_of_documents(story_corpus: TokenDocuments) -> None:
    bank = load_bank(story_corpus.folder, index_of(story_corpus), 0)
    last = {d: len(story_corpus.document(d)) - 1 for d in np.unique(bank.document).tolist()}
    shifts = {"previous": 0, "next": 0}
    for name, kind in zip(bank.names, bank.kinds, strict=True):
        if kind in shifts:
            shifts[kind] += 1
            edge = {(d, 0 if kind == "previous" else n) for d, n in last.items()}
            assert not rows_of(bank, name) & edge, name
    assert min(shifts.values()) > 20


def test_a_shift_sees_tokens_that_no_row_holds(text_corpus: TokenDocuments) -> None:
    """Validation may stop inside a document, or mask a token out: its neighbours know it still."""
    index = index_of(text_corpus)
    whole = load_bank(text_corpus.folder, index, 0)
    holes = index[index[:, 1] % 5 != 3]
    part = load_bank(text_corpus.folder, holes, 0)
    left = set(map(tuple, holes[:, :2].tolist()))
    for name in set(part.names) & set(whole.names):
        assert rows_of(part, name) == rows_of(whole, name) & left


def test_the_order_of_the_index_makes_no_difference(story_corpus: TokenDocuments) -> None:
    a, b = (load_bank(story_corpus.folder, index_of(story_corpus, seed), 0) for seed in (None, 7))
    assert a.names == b.names
    assert (a.labels != b.labels).nnz == 0
    assert np.array_equal(a.fit, b.fit)
    index = index_of(story_corpus, 9)
    rows = a.rows(index)
    restored = np.stack([a.document, a.position, a.token], axis=1)[rows]
    assert np.array_equal(restored, index)


def test_no_document_is_in_both_halves(story_corpus: TokenDocuments) -> None:
    bank = load_bank(story_corpus.folder, index_of(story_corpus), 0)
    assert not set(bank.document[bank.fit]) & set(bank.document[~bank.fit])
    many = np.arange(20_000)
    assert in_fit(0, many).mean() == pytest.approx(0.5, abs=0.015)
    assert np.array_equal(in_fit(0, many)[::-1], in_fit(0, many[::-1]))
    assert (in_fit(0, many) != in_fit(1, many)).mean() == pytest.approx(0.5, abs=0.015)


def test_looks_of_odd_tokens() -> None:
    names = ("lower", "Capitalised", "UPPER", "digits", "punctuation", "starts", "continues")

    def looks(text: str) -> set[str]:
        return {name for name, on in zip(names, looks_of(text), strict=True) if on}

    assert looks("") == looks(" ") == looks("\n") == set()
    assert looks(" I") == {"Capitalised", "starts"}
    assert looks("iPhone") == {"continues"}
    assert looks("'s") == {"lower"}
    assert looks(" B2") == {"Capitalised", "digits", "starts"}
    assert looks("…") == {"punctuation"}
    assert looks("Ü") == {"Capitalised", "continues"}


def test_words_of_a_word_vocabulary_all_start_a_word(story_corpus: TokenDocuments) -> None:
    texts = texts_of(story_corpus.tokenizer())
    assert texts[story_corpus.tokenizer().convert_tokens_to_ids("kitchen")] == " kitchen"


def test_frequency_counts_training_documents_only(story_corpus: TokenDocuments) -> None:
    n = len(story_corpus.tokenizer())
    train = np.concatenate([story_corpus.document(d) for d in story_corpus.split("train")])
    counts = training_counts(story_corpus, n)
    assert np.array_equal(counts, np.bincount(train, minlength=n))
    classes = frequency_classes(counts)
    assert (classes.sum(1) == 1).all()
    assert counts[classes[:, 0]].min() >= counts[classes[:, 1]].max()
    assert counts[classes[:, 1]].min() >= counts[classes[:, 2]].max()
