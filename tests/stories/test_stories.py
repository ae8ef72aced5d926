"""The story grammar: every rule that the study relies on, checked against the text itself."""

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.stories import lexicon
from sae_repro.stories.generator import BLOCK, Stories, concepts, generate, vocabulary
from sae_repro.stories.slots import draw
from sae_repro.stories.templates import compiled

WORDS = vocabulary()
NAMES = [concept.name for concept in concepts()]
FEMALE = {"she", "her", "herself"}
MALE = {"he", "him", "his", "himself"}
ALL_NAMES = {word for name in lexicon.NAME_LISTS for word in lexicon.LISTS[name].words}
HOMOGRAPHS = {"bat", "orange", "park", "saw", "chicken", "light"}
STOPS = set(lexicon.SENTENCE_ENDS)
PARENTS = sorted({c.parent for c in concepts() if c.parent})


@cache
def sample() -> Stories:
    return generate(20_000, seed=7)


@cache
def bits() -> np.ndarray:
    return np.unpackbits(sample().labels, axis=1, count=len(NAMES), bitorder="little").astype(bool)


def holds(name: str) -> np.ndarray:
    return bits()[:, NAMES.index(name)]


@cache
def stories(count: int = 3000) -> list[list[str]]:
    starts, tokens = sample().starts, sample().tokens
    return [[WORDS[t] for t in tokens[starts[i] : starts[i + 1]]] for i in range(count)]


def same(one: Stories, other: Stories) -> bool:
    return all(
        np.array_equal(getattr(one, field), getattr(other, field))
        for field in ("tokens", "starts", "labels")
    )


def joined(one: Stories, other: Stories) -> Stories:
    return Stories(
        np.concatenate([one.tokens, other.tokens]),
        np.concatenate([one.starts, one.starts[-1] + other.starts[1:]]),
        np.concatenate([one.labels, other.labels]),
    )


# The stream


@settings(max_examples=25, deadline=None)
@given(
    first=st.integers(0, 2 * BLOCK),
    sizes=st.tuples(st.integers(0, 1200), st.integers(0, 1200)),
    seed=st.integers(0, 2**63),
)
def test_chunking_does_not_change_documents(first, sizes, seed):
    whole = generate(sum(sizes), seed, first)
    assert same(
        whole, joined(generate(sizes[0], seed, first), generate(sizes[1], seed, first + sizes[0]))
    )


def test_a_stream_depends_on_its_seed_and_on_no_global_generator():
    np.random.seed(0)
    one = generate(50, seed=3)
    np.random.seed(1)
    assert same(one, generate(50, seed=3))
    assert not np.array_equal(one.tokens[:1000], generate(50, seed=4).tokens[:1000])


def test_blocks_of_stories_differ():
    stories = generate(2 * BLOCK, seed=0)
    first = stories.tokens[: stories.starts[1]]
    assert not np.array_equal(first, generate(1, seed=0, first=BLOCK).tokens[: len(first)])


def test_arrays_have_the_stated_form():
    got = sample()
    assert (got.tokens.dtype, got.starts.dtype, got.labels.dtype) == (np.uint16, np.int64, np.uint8)
    assert got.starts[0] == 0 and got.starts[-1] == len(got.tokens) == len(got.labels)
    assert got.labels.shape[1] == -(-len(NAMES) // 8)
    assert got.tokens.max() < len(WORDS)
    padding = np.unpackbits(got.labels[:100], axis=1, bitorder="little")[:, len(NAMES) :]
    assert not padding.any()
    empty = generate(0, seed=0, first=5)
    assert empty.starts.tolist() == [0] and empty.labels.shape == (0, got.labels.shape[1])


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_negative_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be >= 0"):
        generate(*arguments)


def test_documents_fit_the_context():
    lengths = np.diff(sample().starts)
    assert lengths.min() >= 30 and lengths.max() <= 63
    # What the bounds rest on, rather than the luck of a sample.
    assert compiled().lengths.max() <= 16
    shortest = [
        min(compiled().lengths[option].min() for option in options if len(option))
        for options in compiled().groups.values()
    ]
    assert sum(shortest) - 2 * max(shortest) >= 63


# The words and the concepts


def test_vocabulary_and_concepts():
    assert 400 <= len(WORDS) <= 600 and len(set(WORDS)) == len(WORDS)
    assert set(np.unique(sample().tokens)) == set(range(len(WORDS))), "a word never occurs"
    assert len(set(NAMES)) == len(NAMES)
    assert bits().any(axis=0).all(), "a concept never holds"
    for position, concept in enumerate(concepts()):
        assert concept.kind in {"class", "state"}
        if concept.parent:
            assert NAMES.index(concept.parent) < position
            assert not (holds(concept.name) & ~holds(concept.parent)).any()
    assert concepts() == concepts()


def test_every_token_has_a_class_and_siblings_exclude_each_other():
    classes = [i for i, concept in enumerate(concepts()) if concept.kind == "class"]
    assert bits()[:, classes].any(axis=1).all()
    for parent in PARENTS:
        children = [c.name for c in concepts() if c.parent == parent]
        assert sum(holds(child).astype(int) for child in children).max() == 1


@pytest.mark.parametrize("parent", PARENTS)
def test_a_parent_is_more_than_its_large_children(parent):
    here = holds(parent)
    children = [c.name for c in concepts() if c.parent == parent]
    large = [holds(c) for c in children if holds(c)[here].mean() >= 0.05]
    assert large
    assert (here & ~np.any(large, axis=0)).sum() / here.sum() >= 0.3
    # Nor may frequent words do what frequent child concepts must not.
    if all(":" in child for child in children):
        counts = np.bincount(sample().tokens[here]) / here.sum()
        assert 1 - counts[counts >= 0.05].sum() >= 0.3


@pytest.mark.parametrize(
    "name", [entry.concepts[0] for entry in lexicon.LISTS.values() if entry.zipf]
)
def test_words_of_a_kind_follow_zipf(name):
    counts = np.sort(np.bincount(sample().tokens[holds(name)]))[::-1]
    share = counts[counts > 0] / counts.sum()
    assert 0.2 < share[0] < 0.3
    assert share[0] > 1.4 * share[1] > 1.4 * share[3] > 1.4 * share[9]


# Homographs


def next_word(list_name: str, word: str) -> set[str]:
    """The words after `word` where it is labelled as a word of the list, within a document."""
    concept = lexicon.LISTS[list_name].concepts[0]
    where = np.flatnonzero((sample().tokens == WORDS.index(word)) & holds(concept))
    assert len(where) > 20
    return {WORDS[sample().tokens[i + 1]] for i in where}


def test_a_homograph_is_labelled_by_its_use():
    uses = Counter(word for _, word in lexicon.senses())
    assert {word for word, count in uses.items() if count > 1} == HOMOGRAPHS | {'"'}
    things = {
        word
        for kind in ("animal", "food", "object")
        for name, entry in lexicon.LISTS.items()
        if kind in entry.concepts
        for word in entry.words
    }
    verbs = {w for entry in lexicon.LISTS.values() if "verb" in entry.concepts for w in entry.words}
    assert next_word("infinitive", "park") == {"the"}
    assert next_word("outdoor_place", "park").isdisjoint({"the"})
    assert next_word("see", "saw") <= {"the", "a"}
    assert next_word("tool", "saw").isdisjoint({"the", "a"})
    for adjective, noun in (("orange", "sweet_food"), ("light", "tool")):
        followers = next_word("colour" if adjective == "orange" else "size", adjective)
        assert followers <= things | STOPS | {"and"} and followers & things
        assert next_word(noun, adjective).isdisjoint(things)
    assert next_word("wild_animal", "bat") & (verbs | {"looked"})
    assert next_word("farm_animal", "chicken") & (verbs | {"looked"})


# States, derived again token by token


def test_quotes_are_labelled_closed_and_predictable():
    inside = holds("inside_quotes")
    tokens, starts = sample().tokens, sample().starts
    quote = WORDS.index('"')
    endings = {True: set(), False: set()}
    for start, stop in pairwise(starts[:3001]):
        is_open = False
        for i in range(start, stop):
            if is_open and WORDS[tokens[i - 1]] in STOPS:
                assert tokens[i] == quote, "a quote goes on after its only sentence"
            if tokens[i] == quote:
                assert not is_open or WORDS[tokens[i - 1]] in STOPS
                is_open = not is_open
            if WORDS[tokens[i]] in STOPS:
                endings[is_open].add(WORDS[tokens[i]])
            assert inside[i] == is_open
        assert not is_open
    assert endings[True] == endings[False] == STOPS
    assert np.array_equal(holds("opening_quote"), (tokens == quote) & inside)
    assert np.array_equal(holds("closing_quote"), (tokens == quote) & ~inside)


def test_topic_holds_from_its_first_word_on():
    lexicons = {word: t for t in lexicon.TOPICS for word in lexicon.LISTS[t].words}
    labels = {topic: holds(f"topic:{topic}") for topic in lexicon.TOPICS}
    position = repeats = 0
    for story in stories():
        known = None
        for word in story:
            if word in lexicons:
                assert known in (None, lexicons[word]), "a story has two topics"
                repeats += known is not None
                known = lexicons[word]
            assert [t for t in lexicon.TOPICS if labels[t][position]] == ([known] if known else [])
            position += 1
    assert repeats > 1000, "a topic must matter after it is known"


def test_scene_holds_from_its_place_to_the_next_and_decides_what_is_done():
    position = acts = 0
    done = {word: s for s in lexicon.SCENES for word in lexicon.LISTS[f"{s}_verb"].words}
    kinds = {"indoor_place": "indoor", "outdoor_place": "outdoor", "other_place": None}
    places = {w: scene for name, scene in kinds.items() for w in lexicon.LISTS[name].words}
    as_place, labels = holds("place"), {s: holds(f"scene:{s}") for s in lexicon.SCENES}
    for story in stories():
        scene = None
        for word in story:
            if word in places and as_place[position]:
                scene = places[word]
            assert [s for s in lexicon.SCENES if labels[s][position]] == ([scene] if scene else [])
            if word in done and scene:
                assert done[word] == scene
                acts += 1
            position += 1
    assert acts > 1000


def gender(word: str, nouns: dict[str, str]) -> str | None:
    if word in FEMALE | {"girl"} | set(lexicon.LISTS["female_name"].words):
        return "female"
    if word in MALE | {"boy"} | set(lexicon.LISTS["male_name"].words):
        return "male"
    if word in lexicon.LISTS["grown_up"].words:
        return "female" if word in lexicon.FEMALE_GROWN_UPS else "male"
    return nouns.get(word)


def genders_of_unmarked_names(story: list[str]) -> dict[str, str]:
    """From "a girl named Robin"."""
    return {
        story[i + 1]: "female" if story[i - 1] == "girl" else "male"
        for i, word in enumerate(story)
        if word == "named"
    }


def test_speaker_holds_in_quotes_whose_speaker_was_named_before():
    labels = {s: holds(f"speaker:{s}") for s in lexicon.SPEAKERS}
    speech = set(lexicon.LISTS["speech_verb"].words)
    position, known = 0, 0
    for story in stories():
        nouns = genders_of_unmarked_names(story)
        is_open, speaker = False, set()
        for i, word in enumerate(story):
            if word == '"':
                is_open = not is_open
                speaker = set()
                if is_open and story[i - 1] == "," and story[i - 2] in speech:
                    who = story[i - 3]
                    grown_up = who in lexicon.LISTS["grown_up"].words
                    speaker = {gender(who, nouns), "grown_up" if grown_up else "child"}
                    known += 1
            got = {s for s in lexicon.SPEAKERS if labels[s][position]}
            assert got == (speaker if is_open else set())
            position += 1
    assert known > 500


# People


def test_a_pronoun_is_of_the_gender_of_one_person_already_introduced():
    pronouns = 0
    for story in stories():
        nouns = genders_of_unmarked_names(story)
        people: dict[str, str] = {}
        for word in story:
            if word in ALL_NAMES or word in lexicon.LISTS["grown_up"].words:
                people[word] = gender(word, nouns)
                assert people[word], f"nothing tells whether {word} is a girl or a boy"
            if word in FEMALE | MALE:
                assert gender(word, {}) in people.values()
                pronouns += 1
        assert len(people) <= 2
        assert len(set(people.values())) == len(people), "two people of one gender"
    assert pronouns > 2 * len(stories())


def test_subjects_and_addressees_are_recoverable():
    """The rules by which a reader knows whose name comes next."""
    reused = 0
    for story in stories():
        hero = next(word for word in story if word in ALL_NAMES)
        assert not any(w in ALL_NAMES and story.index(w) < story.index(hero) for w in story)
        second = {w for w in story if w in ALL_NAMES | set(lexicon.LISTS["grown_up"].words)}
        second -= {hero}
        for i, word in enumerate(story):
            before = story[i - 1]
            if word in ALL_NAMES and word in story[:i]:
                reused += 1
                if before in {"then", "soon"}:
                    assert word == hero
                if before in STOPS:
                    # The second person opens a bare sentence at the introduction only.
                    assert word == hero
            if before == "but":
                assert word in second
            if word == "," and before in lexicon.LISTS["speech_verb"].words:
                quoted = story[i + 2 : i + 2 + story[i + 2 :].index('"')]
                speaker = hero if story[i - 2] in FEMALE | MALE else story[i - 2]
                assert speaker not in quoted
    assert reused > 2 * len(stories())


@pytest.mark.parametrize(
    ("antecedents", "consequences", "never"),
    [
        (["farm_animal"], ["farm_home"], ["wild_home"]),
        (["wild_animal"], ["wild_home"], ["farm_home"]),
        (["sweet_food"], ["sweet_taste"], ["savoury_taste"]),
        (["savoury_food"], ["savoury_taste"], ["sweet_taste"]),
        (["toy"], ["toy_deed"], ["tool_deed"]),
        (["tool"], ["tool_deed"], ["toy_deed"]),
        (["glad_adjective"], ["glad_deed"], ["gloomy_deed"]),
        (["gloomy_adjective"], ["gloomy_deed"], ["glad_deed"]),
        (["grown_up"], ["dear"], []),
        (["farm_animal", "wild_animal", "other_animal"], ["animal_deed", "animal"], []),
        (["sweet_food", "savoury_food", "other_food"], ["food"], []),
        (["toy", "tool", "other_object"], ["thing", "container"], []),
        (["indoor_place", "outdoor_place", "other_place"], ["there"], []),
        (["speech_verb"], ['"'], []),
    ],
)
def test_a_words_class_has_consequences_later(antecedents, consequences, never):
    """Stories with a word of the lists go on to its consequences, and never to the others."""

    def words(names: list[str]) -> set[str]:
        listed = [lexicon.LISTS[n].words if n in lexicon.LISTS else (n,) for n in names]
        return {word for entry in listed for word in entry}

    causes, effects = words(antecedents) - HOMOGRAPHS, words(consequences)
    followed = total = 0
    for story in stories():
        first = next((i for i, word in enumerate(story) if word in causes), None)
        if first is not None:
            total += 1
            rest = set(story[first + 1 :])
            followed += bool(rest & effects)
            assert not rest & words(never)
    assert total > 200 and followed > 0.1 * total


def test_only_grown_ups_say_dear():
    grown_ups = set(lexicon.LISTS["grown_up"].words)
    assert all(grown_ups & set(story) for story in stories() if "dear" in story)


# The draws behind it all


def test_draws_are_as_many_for_every_document():
    """Nothing about one document moves another's draws: equal counts, whatever is drawn."""
    rngs = [np.random.Generator(np.random.Philox(key=seed)) for seed in (1, 2)]
    for rng in rngs:
        draw(rng, 64)
    positions = [rng.bit_generator.state["state"]["counter"].tolist() for rng in rngs]
    assert positions[0] == positions[1]
