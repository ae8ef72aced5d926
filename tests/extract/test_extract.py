"""The stage extract: rows, shards, statistics and manifest; broken activations are refused."""

import itertools
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from sae_repro.corpus.tokenizers import word_level
from sae_repro.errors import StudyError
from sae_repro.extract.checks import check_fit
from sae_repro.extract.extraction import Inputs, extract, weights_seed
from sae_repro.extract.passes import start_and_special
from sae_repro.extract.prefixes import seen_in_training
from sae_repro.extract.resumption import States
from sae_repro.extract.sinks import OrderedSink, ShuffledSink
from sae_repro.extract.statistics import Statistics
from sae_repro.params import Extract
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore, RowFile
from sae_repro.readers.subject import load_for, load_untrained

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out")
SPLITS = ("train", "calibration", "validation")
SETTINGS = Extract(
    hooks=HOOKS, context=8, n_tokens=10_000, n_calibration_tokens=500, n_validation_tokens=500,
    batch_size=5, shard_rows=256, threads=1,
)  # fmt: skip


@pytest.fixture
def run(subject: Any, corpus: TokenDocuments, tmp_path: Path) -> Callable[..., ActivationStore]:
    count = itertools.count()

    def go(settings: Extract = SETTINGS, seed: int = 0) -> ActivationStore:
        folder = tmp_path / f"extract-{next(count)}"
        extract(Inputs(subject, corpus, {}), settings, seed=seed, states=States(folder))
        return ActivationStore(folder)

    return go


def rows(store: ActivationStore, hook: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate(list(store.activations(hook, split).batches(100)))
    return x, np.concatenate(list(store.index(split).batches(100)))


def test_every_real_token_is_there_once_with_transformers_own_activation(
    run: Callable[..., ActivationStore], corpus: TokenDocuments, model_folder: Path
) -> None:
    store = run()
    model = GPT2LMHeadModel.from_pretrained(model_folder).eval()
    for split in SPLITS:
        x, index = rows(store, HOOKS[0], split)
        real_tokens = {
            (int(d), p, int(t))
            for d in corpus.split(split)
            for p, t in enumerate(corpus.document(d))
            if t != 1  # a stray BOS in a document is no token of it
        }
        assert {tuple(row) for row in index.tolist()} == real_tokens
        assert len(index) == len(real_tokens) == store.manifest["tokens"][split]
        for value, (document, position, _) in list(zip(x, index, strict=True))[:40]:
            start = position // 7 * 7  # rows of BOS and 7 tokens
            ids = [1, *corpus.document(document)[start : position + 1].tolist()]
            with torch.no_grad():
                hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1]
            assert np.allclose(value, hidden[0, -1], atol=1e-5)


def test_tuning_documents_are_extracted_and_change_nothing_else(
    run: Callable[..., ActivationStore], corpus: TokenDocuments
) -> None:
    plain = run()
    corpus.documents.loc[corpus.documents["document"] % 9 == 0, "split"] = "tuning"
    store = run(SETTINGS.model_copy(update={"n_tuning_tokens": 40}))
    x, index = rows(store, HOOKS[0], "tuning")
    assert len(x) == len(index) == store.manifest["tokens"]["tuning"] == 40
    assert set(index[:, 0]) <= set(corpus.split("tuning"))
    assert not set(index[:, 0]) & set(rows(store, HOOKS[0], "train")[1][:, 0])
    for split in ("calibration", "validation"):
        same = [s.activations(HOOKS[0], split).checksum for s in (plain, store)]
        assert same[0] == same[1]
    assert "tuning" not in plain.manifest["tokens"]


def test_hooks_stay_aligned_and_training_rows_are_shuffled(
    run: Callable[..., ActivationStore],
) -> None:
    store = run()
    order = rows(store, HOOKS[0], "train")[1]
    sorted_order = order[np.lexsort((order[:, 1], order[:, 0]))]
    assert not np.array_equal(order, sorted_order)
    natural = rows(store, HOOKS[0], "validation")[1]
    assert np.array_equal(natural, natural[np.lexsort((natural[:, 1], natural[:, 0]))])
    alone = run(SETTINGS.model_copy(update={"hooks": HOOKS[1:]}))
    assert np.array_equal(rows(store, HOOKS[1], "train")[0], rows(alone, HOOKS[1], "train")[0])


def test_same_seed_same_bits_other_seed_other_order(run: Callable[..., ActivationStore]) -> None:
    first, again, other = run(), run(), run(seed=1)
    assert first.manifest == again.manifest
    assert first.manifest != other.manifest


def test_mean_and_rms_are_those_of_training_rows_only(run: Callable[..., ActivationStore]) -> None:
    store = run()
    x = rows(store, HOOKS[0], "train")[0].astype(np.float64)
    assert np.allclose(store.mean(HOOKS[0]), x.mean(0), rtol=1e-9)
    assert store.rms(HOOKS[0]) == pytest.approx(np.sqrt((x**2).sum(1).mean()), rel=1e-9)


@pytest.mark.parametrize("limit", [1, 17, 100])
def test_token_limits_hold(run: Callable[..., ActivationStore], limit: int) -> None:
    store = run(SETTINGS.model_copy(update={"n_tokens": limit}))
    assert store.manifest["tokens"]["train"] == limit


def test_a_documents_mean_is_one_row(run: Callable[..., ActivationStore]) -> None:
    tokens, pooled = run(), run(SETTINGS.model_copy(update={"pooling": "document_mean"}))
    x, index = rows(tokens, HOOKS[0], "validation")
    mean, pooled_index = rows(pooled, HOOKS[0], "validation")
    assert pooled_index[:, 0].tolist() == np.unique(index[:, 0]).tolist()
    for value, (document, _, _) in zip(mean, pooled_index, strict=True):
        expected = x[index[:, 0] == document].astype(np.float64).mean(0)
        assert np.allclose(value, expected, atol=1e-6)


def test_half_precision_that_overflows_stops_and_says_where(
    run: Callable[..., ActivationStore], subject: Any
) -> None:
    half = SETTINGS.model_copy(update={"dtype": "float16"})
    x = rows(run(half), HOOKS[0], "train")[0]
    assert x.dtype == np.float16
    huge = [(HOOKS[0], lambda value, hook: value * 1e6)]
    with pytest.raises(StudyError, match=r"hook_resid_post is .* at document 0, position 0 .*"
                       r"set extract\.dtype to float32"), subject.hooks(huge):  # fmt: skip
        run(half)


@pytest.mark.parametrize(("value", "says"), [(0.0, "is 0 at every"), (2.5, "is the same vector")])
def test_a_hook_that_never_varies_is_named(
    run: Callable[..., ActivationStore], subject: Any, value: float, says: str
) -> None:
    constant = [(HOOKS[1], lambda x, hook: torch.full_like(x, value))]
    says = rf"extract: {HOOKS[1]} {says}.* training token"
    with pytest.raises(StudyError, match=says), subject.hooks(constant):
        run()


def test_a_damaged_shard_is_named(run: Callable[..., ActivationStore]) -> None:
    store = run()
    path = store.folder / HOOKS[0] / "train" / "00000.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StudyError, match=r"00000\.npy: damaged"):
        rows(store, HOOKS[0], "train")


def test_a_damaged_mean_is_named(run: Callable[..., ActivationStore]) -> None:
    store = run()
    path = store.folder / HOOKS[0] / "mean.npy"
    np.save(path, np.load(path) + 1)
    with pytest.raises(StudyError, match=r"mean\.npy: damaged"):
        store.mean(HOOKS[0])


def test_hooks_and_positions_the_model_lacks(subject: Any) -> None:
    for change, message in (
        ({"hooks": ("blocks.3.hook_resid_post",)}, r"the model has layers 0 … 2"),
        ({"context": 9}, "the model has 8 positions"),
    ):
        with pytest.raises(StudyError, match=message):
            check_fit(SETTINGS.model_copy(update=change), subject)


def test_random_weights_read_the_same_windows_and_change_nothing_else(
    run: Callable[..., ActivationStore], model_folder: Path, subject: Any, corpus: TokenDocuments,
    tmp_path: Path,
) -> None:  # fmt: skip
    both = SETTINGS.model_copy(update={"untrained_hooks": HOOKS[1:]})
    alone, name = run(), f"untrained/{HOOKS[1]}"
    state = torch.random.get_rng_state()
    random = load_untrained(model_folder, weights_seed(0))
    assert torch.equal(torch.random.get_rng_state(), state)
    inputs = Inputs(subject, corpus, {}, untrained=random)
    extract(inputs, both, seed=0, states=States(tmp_path / "both"))
    store = ActivationStore(tmp_path / "both")
    for hook in HOOKS:
        assert store.manifest["hooks"][hook] == alone.manifest["hooks"][hook]
    assert store.manifest["index"] == alone.manifest["index"]
    assert "untrained" not in alone.manifest
    for split in SPLITS:
        x, index = rows(store, name, split)
        assert len(x) == len(index)
        assert not np.allclose(x, rows(store, HOOKS[1], split)[0], atol=0.1)
    # row by row what the random model says of that very token
    x, index = rows(store, name, "train")
    for value, (document, position, _) in list(zip(x, index, strict=True))[:20]:
        start = position // 7 * 7
        ids = [1, *corpus.document(document)[start : position + 1].tolist()]
        _, cache = random.run_with_cache(torch.tensor([ids]), names_filter=[HOOKS[1]])
        assert np.allclose(value, cache[HOOKS[1]][0, -1], atol=1e-5)
    assert store.mean(name).shape == (16,)


def test_random_weights_follow_from_the_seed_and_the_subjects_configuration(
    model_folder: Path,
) -> None:
    tokens = torch.arange(3, 10)[None]
    seeds = (weights_seed(0), weights_seed(0), weights_seed(1))
    first, again, other = (load_untrained(model_folder, s)(tokens) for s in seeds)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    random = load_untrained(model_folder, 5)
    # GPT2Config's initializer_range of the fixture, not transformers' own .02
    embedding = random.embed.W_E if hasattr(random.embed, "W_E") else random.embed.weight
    assert float(embedding.std()) == pytest.approx(0.3, rel=0.15)
    assert not any(p.requires_grad for p in random.parameters())


def test_with_embeddings_alone_every_other_weight_is_the_random_models(
    run: Callable[..., ActivationStore], model_folder: Path, subject: Any, corpus: TokenDocuments,
    tmp_path: Path,
) -> None:  # fmt: skip
    def plain(model: Any) -> dict[str, torch.Tensor]:
        return dict(model.original_model.state_dict())

    random = plain(load_untrained(model_folder, weights_seed(0)))
    model = load_untrained(model_folder, weights_seed(0), embeddings=True)
    kept, own = plain(model), plain(subject)
    embeds = {name for name in kept if any(part in name for part in ("wte", "wpe", "lm_head"))}
    assert len(embeds) > 1
    for name, tensor in kept.items():
        assert torch.equal(tensor, (own if name in embeds else random)[name]), name
    assert not all(torch.equal(own[name], random[name]) for name in own.keys() - embeds)
    both = SETTINGS.model_copy(update={"embeddings_hooks": HOOKS[1:]})
    inputs = Inputs(subject, corpus, {}, embeddings=model)
    extract(inputs, both, seed=0, states=States(tmp_path / "e"))
    store = ActivationStore(tmp_path / "e")
    assert store.manifest["hooks"][HOOKS[0]] == run().manifest["hooks"][HOOKS[0]]
    again = load_for(f"embeddings/{HOOKS[1]}", model_folder, store.manifest)
    x, index = rows(store, f"embeddings/{HOOKS[1]}", "validation")
    ids = [1, *corpus.document(index[0, 0])[: index[0, 1] + 1].tolist()]
    _, cache = again.run_with_cache(torch.tensor([ids]), names_filter=[HOOKS[1]])
    assert np.allclose(x[0], cache[HOOKS[1]][0, -1], atol=1e-5)


def test_special_ids_of_the_tokenizer(corpus: TokenDocuments) -> None:
    assert start_and_special(corpus, SETTINGS) == (1, {1, 2}, 2)
    without = SETTINGS.model_copy(update={"prepend_bos": False})
    assert start_and_special(corpus, without)[0] is None


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_sinks_lose_and_double_nothing(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shards: int, seed: int
) -> None:
    total = sum(sizes)
    x = np.arange(total, dtype=np.float32)[:, None]
    index = np.repeat(np.arange(total, dtype=np.int32)[:, None], 3, axis=1)
    folder = tmp_path_factory.mktemp("sinks")
    rng = np.random.default_rng(seed)
    for name, sink in (
        ("train", ShuffledSink(folder, ["h"], 1, "float32", shards=shards, rng=rng)),
        ("validation", OrderedSink(folder, "validation", ["h"], 1, "float32", 7)),
    ):
        start = 0
        for size in sizes:
            sink.append({"h": x[start : start + size]}, index[start : start + size])
            start += size
        entries = sink.close()
        read = [np.load(folder / e["file"]) for e in entries.get("h", [])]
        values = np.concatenate([*read, np.empty((0, 1), np.float32)])[:, 0]
        places = [np.load(folder / e["file"]) for e in entries.get("index", [])]
        assert sorted(values.tolist()) == list(range(total))
        if total:
            assert np.array_equal(np.concatenate(places)[:, 0], values)
        if name == "validation":
            assert values.tolist() == sorted(values.tolist())
            assert all(len(r) == 7 for r in read[:-1])


def test_sinks_write_the_same_bytes_however_few_files_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 shards of 3 files each, and 80 hooks, where a process may open 24 files more."""
    rng = np.random.default_rng(0)
    x_nd = rng.standard_normal((4000, 2)).astype(np.float32)
    index = np.stack([np.arange(4000)] * 3, axis=1).astype(np.int32)
    few, many = ["a", "b"], [f"hook{n}" for n in range(80)]

    def write(folder: Path) -> dict[str, list[str]]:
        shuffled = ShuffledSink(folder, few, 2, "float32", shards=90, rng=np.random.default_rng(1))
        ordered = OrderedSink(folder, "validation", many, 2, "float32", 256)
        for rows in np.array_split(np.arange(4000), 7):
            shuffled.append(dict.fromkeys(few, x_nd[rows]), index[rows])
            ordered.append(dict.fromkeys(many, x_nd[rows]), index[rows])
        entries = [*shuffled.close().items(), *ordered.close().items()]
        return {
            f"{n} {name}": [e["sha256"] for e in part] for n, (name, part) in enumerate(entries)
        }

    free = write(tmp_path / "free")
    monkeypatch.setattr("sae_repro.extract.sinks.WAITING", 5000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, hard))
    try:
        assert write(tmp_path / "narrow") == free
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_shuffling_is_uniform(tmp_path: Path) -> None:
    """Over many seeds every row is equally likely in every place."""
    counts = np.zeros((6, 6))
    for seed in range(600):
        sink = ShuffledSink(
            tmp_path / str(seed), ["h"], 1, "float32", shards=2, rng=np.random.default_rng(seed)
        )
        sink.append({"h": np.arange(6.0)[:, None]}, np.zeros((6, 3), dtype=np.int32))
        read = [np.load(tmp_path / str(seed) / e["file"]) for e in sink.close()["h"]]
        for place, row in enumerate(np.concatenate(read)[:, 0].astype(int)):
            counts[row, place] += 1
    # 600 draws over 6 places: 100 ± 9 each; 6 standard deviations
    assert np.abs(counts - 100).max() < 55


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_statistics_do_not_depend_on_batches(sizes: list[int]) -> None:
    x = np.random.default_rng(0).standard_normal((sum(sizes), 3)).astype(np.float32)
    whole, parts = Statistics(3), Statistics(3)
    whole.add(x)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        parts.add(part)
    assert np.allclose(whole.mean, parts.mean, rtol=1e-12, atol=1e-15)
    assert whole.rms == pytest.approx(parts.rms, rel=1e-12)


@pytest.mark.parametrize("flat", [True, False])
def test_row_files_are_ordinary_arrays(tmp_path: Path, flat: bool) -> None:
    file = RowFile(tmp_path / "a.npy", 1, np.int32)
    file.append(np.arange(5)[:, None])
    file.append(np.arange(3)[:, None])
    file.close(flat=flat)
    expected = np.array([0, 1, 2, 3, 4, 0, 1, 2], dtype=np.int32)
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected if flat else expected[:, None])


@given(
    planted=st.lists(
        st.tuples(st.integers(0, 29), st.integers(0, 29), st.integers(0, 20)), max_size=12
    ),
    batch=st.integers(1, 40),
    shard_rows=st.sampled_from([256, 700]),
    context=st.sampled_from([4, 8]),
)
@settings(max_examples=40, deadline=None)
def test_validation_rows_are_seen_where_a_training_row_has_the_same_prefix(
    planted: list[tuple[int, int, int]], batch: int, shard_rows: int, context: int
) -> None:
    """Against prefixes as tuples, `planted` ones (training, validation, length) among them."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 21, 90)
    start = np.cumsum(lengths) - lengths
    tokens = rng.integers(3, 7, lengths.sum()).astype(np.int32)
    tokens[rng.random(len(tokens)) < 0.1] = 1  # special, as it may stand inside a document
    for train, validation, size in planted:
        a, b = start[3 * train], start[3 * validation + 2]
        size = min(size, lengths[3 * train], lengths[3 * validation + 2])
        tokens[b : b + size] = tokens[a : a + size]
    frame = pd.DataFrame({"document": np.arange(90), "start": start, "length": lengths,
                          "split": np.array(SPLITS)[np.arange(90) % 3]})  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        word_level([chr(97 + i) for i in range(20)]).save_pretrained(Path(name) / "tokenizer")
        small = TokenDocuments(Path(name), tokens, frame)
        how = SETTINGS.model_copy(
            update={"batch_size": batch, "shard_rows": shard_rows, "context": context}
        )
        limits = {"train": 120, "validation": 200}
        left_out = {
            split: np.flatnonzero(rng.random(limit) < 0.2) for split, limit in limits.items()
        }
        seen = seen_in_training(small, how, limits, left_out)

    def prefixes(split: str) -> list[tuple[int, ...]]:
        room, found = context - 1, []
        for document in np.flatnonzero(frame["split"] == split):
            whole = tokens[start[document] : start[document] + lengths[document]].tolist()
            for begin in range(0, len(whole), room):
                window = whole[begin : begin + room]
                found += [tuple(window[: i + 1]) for i in range(len(window)) if window[i] != 1]
        kept = found[: limits[split]]
        return [prefix for i, prefix in enumerate(kept) if i not in set(left_out[split].tolist())]

    trained = set(prefixes("train"))
    assert seen.tolist() == [prefix in trained for prefix in prefixes("validation")]


def test_seen_rows_have_the_activation_of_a_training_row(
    subject: Any, corpus: TokenDocuments, tmp_path: Path
) -> None:
    train, validation = (corpus.split(split)[0] for split in ("train", "validation"))
    starts = corpus.documents["start"].to_numpy()
    size = int(corpus.documents["length"].to_numpy()[[train, validation]].min())
    copied = corpus.tokens[starts[train] : starts[train] + size]
    corpus.tokens[starts[validation] : starts[validation] + size] = copied
    extract(Inputs(subject, corpus, {}), SETTINGS, seed=0, states=States(tmp_path / "out"))
    store = ActivationStore(tmp_path / "out")
    seen = store.seen()
    assert seen is not None and seen.any()
    x = store.activations(HOOKS[0], "validation").whole()
    trained = store.activations(HOOKS[0], "train").whole()
    apart = np.array([np.abs(trained - row).max(axis=1).min() for row in x])
    assert (apart[seen] < 1e-4).all() and (apart[~seen] > 1e-3).all()
