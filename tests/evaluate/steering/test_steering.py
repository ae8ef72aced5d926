"""Steering as a metric: planted latents raise, or don't, what the grammar says they should."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.autoencoders import SAE, Weights
from sae_repro.concepts.bank import load_bank
from sae_repro.corpus.tokenizers import word_level
from sae_repro.corpus.writing import write_stories
from sae_repro.evaluate.codes import CodeFile
from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.held_out import Batch, held_out, validation_batches
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.metrics import steering
from sae_repro.evaluate.metrics.steering import conditions
from sae_repro.evaluate.metrics.steering.conditions import KL
from sae_repro.evaluate.metrics.steering.grammar import CONCEPTS, words_of
from sae_repro.evaluate.metrics.steering.scene import Scene
from sae_repro.evaluate.metrics.steering.table import MEANS, Outcome, Tally, counts, row, summary
from sae_repro.evaluate.reconstruction import accumulate
from sae_repro.evaluate.summary import Summary
from sae_repro.files import read_json, write_json
from sae_repro.params import Corpus, Evaluate, StoriesSource
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore
from sae_repro.stories import lexicon

HOOK = "blocks.0.hook_resid_post"
D, N, CONTEXT = 8, 48_000, 48
WORDS = lexicon.vocabulary()
V = len(WORDS) + 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus of stories, and a model whose dimension i promotes the words of `CONCEPTS[i]`."""
    corpus, subject = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("subject")
    source = StoriesSource(kind="stories", n_documents=3000)
    write_stories(Corpus(source=source, validation=0.8), source, 0, corpus)
    config = GPT2Config(
        vocab_size=V, n_positions=64, n_embd=D, n_layer=1, n_head=2, initializer_range=0.05,
        bos_token_id=1, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    tokenizer = word_level(WORDS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for i, concept in enumerate(CONCEPTS):
            model.lm_head.weight[torch.from_numpy(words_of(concept, tokenizer, V)), i] += 1.0
    model.save_pretrained(subject)
    tokenizer.save_pretrained(subject)
    return corpus, subject


@pytest.fixture
def first_pass(
    folders: tuple[Path, Path], make_store: Callable[..., Path], tmp_path: Path
) -> FirstPass:
    """Latent i fires before words of `CONCEPTS[i]`, latent 4 + i on them; its atom is axis i of 8,
    so that only the first four promote anything."""
    corpus, subject = folders
    rows = np.arange(N)
    index = np.stack([rows // 20, rows % 20, rows % 7], axis=1)
    bank = load_bank(corpus, index, 0)
    names = [*(f"next:{concept}" for concept in CONCEPTS), *CONCEPTS]
    labels = bank.labels[:, [bank.names.index(name) for name in names]].toarray()
    x = labels.astype(np.float32) + 0.1
    folder = make_store(validation=x, train=500, d_in=D)
    manifest = folder / "manifest.json"
    write_json(manifest, {**read_json(manifest), "context": CONTEXT})
    study = Evaluation(
        settings=Evaluate(), seed=0, inputs="", trainer="", store=tmp_path, corpus=corpus,
        subject=subject, activations=folder,
    )  # fmt: skip
    identity = torch.eye(D)
    sae = SAE("standard", Weights(identity, torch.full((D,), -0.2), identity, torch.zeros(D)))
    store = ActivationStore(folder)

    def batches() -> Iterator[Batch]:
        return validation_batches(store, HOOK, 500, "cpu")

    out = tmp_path / "out"
    out.mkdir()
    codes = CodeFile(out)
    totals = accumulate(sae, batches(), held_out(store, HOOK, 500, "cpu"), codes.append)
    codes.close()
    return FirstPass(study, sae, store, HOOK, batches, codes, totals, out)


def measured(first_pass: FirstPass) -> tuple[pd.DataFrame, Summary]:
    found = steering.measure(first_pass)
    return pd.read_parquet(first_pass.folder / "steering.parquet"), found


def test_a_latent_that_promotes_a_class_is_told_from_one_that_only_fires_on_it(
    first_pass: FirstPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = CONCEPTS[:2]
    for name, value in {"CONCEPTS": few, "DRAWS": 2}.items():  # the rest takes seconds
        monkeypatch.setattr(conditions, name, value)
    frame, found = measured(first_pass)
    assert [*frame] == [*row()]
    by = frame.set_index(["concept", "role", "condition"])
    for i, concept in enumerate(few):
        promotes, fires = by.loc[concept, "next", "latent"], by.loc[concept, "current", "latent"]
        assert (promotes["latent"], fires["latent"]) == (i, 4 + i)
        assert [promotes["phi"], fires["phi"]] == pytest.approx([1, 1])
        assert promotes["low"] > 0.05 and promotes["reason"] is None
        assert fires["difference"] < promotes["difference"] / 2
        # the atom is the difference of means: as strong, and as much written
        means = by.loc[concept, "next", "difference of means"]
        assert means["difference"] == pytest.approx(promotes["difference"], abs=0.1)
    equal = frame[~frame["condition"].isin(["unsteered", "latent set to 0"])]
    np.testing.assert_allclose(equal["kl"], KL, rtol=0.011)
    assert set(found.metrics) == set(MEANS) == set(found.intervals)
    for name, (low, high) in found.intervals.items():
        assert low <= found.metrics[name] <= high
    assert found.counts == {
        "steering_concepts": 2, "steering_next_concepts": 2, "steering_latents_unreached": 0,
        "steering_prompts": 64, "steering_tokens": int(by["tokens"].iloc[0]),
    }  # fmt: skip


def test_an_sae_has_stories_of_its_own_all_of_the_test_half(first_pass: FirstPass) -> None:
    scene, again = Scene.of(first_pass), Scene.of(first_pass)
    bank, corpus = first_pass.bank, TokenDocuments.load(first_pass.study.corpus)
    prompts = [tuple(prompt[1:]) for prompt in scene.prompts.tolist()]
    test = np.unique(bank.document[~bank.fit])
    assert len(prompts) == 64
    assert {*prompts} <= {tuple(corpus.document(d)[: len(prompts[0])].tolist()) for d in test}
    assert torch.equal(scene.prompts, again.prompts)
    turned = replace(first_pass.sae.weights, W_dec=first_pass.sae.weights.W_dec.flip(0))
    other = Scene.of(replace(first_pass, sae=SAE("standard", turned)))
    assert not torch.equal(scene.prompts, other.prompts)
    assert scene.kl(torch.zeros_like) == 0
    assert np.array_equal(scene.written(torch.zeros_like), scene.unsteered())
    assert np.array_equal(scene.unsteered(), again.unsteered())


def test_cells_that_can_not_be_steered_say_why(first_pass: FirstPass, tmp_path: Path) -> None:
    path = first_pass.study.activations / "manifest.json"
    write_json(path, {**read_json(path), "context": 20})
    for says, changed in {
        "hook_mlp_out is no residual stream": {"hook": "blocks.0.hook_mlp_out"},
        "random weights": {"hook": f"untrained/{HOOK}"},
        "no grammar": {"study": replace(first_pass.study, corpus=tmp_path)},
        "extract.context: 20 positions; at least 32": {"store": ActivationStore(path.parent)},
    }.items():
        frame, found = measured(replace(first_pass, **changed))
        assert frame["condition"].isna().all() and says in frame["reason"][0]
        assert found.metrics == dict.fromkeys(MEANS) and found.counts["steering_concepts"] == 0


@pytest.mark.parametrize(
    ("concept", "lists"),
    [
        ("name", lexicon.NAME_LISTS),
        ("animal", ("farm_animal", "wild_animal", "other_animal")),
    ],
)
def test_words_of_a_class_are_of_it_in_every_use(concept: str, lists: tuple[str, ...]) -> None:
    uses = [word for entry in lexicon.LISTS.values() for word in entry.words]
    homographs = {word for word in WORDS if uses.count(word) > 1}
    expected = {word for each in lists for word in lexicon.LISTS[each].words}
    found = {WORDS[i - 3] for i in words_of(concept, word_level(WORDS), V).nonzero()[0]}
    assert found == expected - homographs and len(found) > 10


def tally(condition: str, written: list[list[list[int]]], against: Tally | None = None) -> Tally:
    """Of the class of token 5; token 1 ends a text."""
    words = np.arange(10) == 5
    outcomes = [Outcome(1.0, 0.3, np.array(draw)) for draw in written]
    return Tally.of("name", "current", condition, outcomes, words, np.array([1]), against, {})


def test_words_count_ahead_of_the_end_and_shares_are_ratios_of_sums() -> None:
    written = np.array([[5, 5, 1, 5], [2, 3, 5, 4], [1, 5, 5, 5]])
    words_n, tokens_n = counts(written, np.arange(10) == 5, np.array([1]))
    assert words_n.tolist() == [2, 1, 0] and tokens_n.tolist() == [2, 4, 0]
    one = tally("random direction", [written.tolist(), [[2] * 4] * 3])
    assert one.share == 3 / (6 + 12)
    other = tally("latent", [[[5, 2, 2, 2]] * 3], one)
    assert other.difference == pytest.approx(1 / 4 - 3 / 18)


def test_intervals_pair_the_prompts() -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(4, 7, (40, 6))
    raised = plain.copy()
    raised[:, 0] = 5  # of every text one token in six, less where it was one before
    base = tally("random direction", [plain.tolist()])
    found = tally("latent", [raised.tolist()], base).row(0)
    gain = ((raised == 5).sum(axis=1) - (plain == 5).sum(axis=1)) / 6
    assert found["difference"] == pytest.approx(gain.mean())
    half = 1.96 * gain.std(ddof=1) / np.sqrt(40)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=0.15)


def test_conditions_without_text_say_why_and_leave_the_means() -> None:
    base = tally("random direction", [[[2, 5, 3]] * 6])
    reached = tally("latent", [[[5, 5, 3]] * 6], base)
    missed = Tally.of("food", "current", "latent", [], np.zeros(10, bool), np.array([1]), base,
                      {"latent": 3})  # fmt: skip
    tallies = [tally("unsteered", [[[2, 2, 3]] * 6]), base, reached, missed]
    frame = pd.DataFrame([each.row(0) for each in tallies])
    assert "no strength" in frame["reason"].iloc[-1]
    found = summary(frame, tallies, 0)
    assert found.metrics["steering_over_random"] == pytest.approx(1 / 3)
    assert found.metrics["steering_next_over_random"] is None
    assert found.counts["steering_concepts"] == 1
    assert found.counts["steering_latents_unreached"] == 1
