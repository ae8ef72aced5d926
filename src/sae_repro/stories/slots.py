"""Slots of a document: its people, things, places and moods, drawn once per document."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from sae_repro.stories import lexicon
from sae_repro.stories.templates import EPISODES, SLOTS

GRID = 4096  # draws are this fine: a word's frequency is a multiple of 1 / GRID

# The shares of the two kinds of a noun; the rest belongs to neither.
FIRST_KIND, SECOND_KIND = 0.30, 0.25
FEMALE_HERO, NAME_OF_NO_KIND = 0.55, 0.36
SOLO_SHARE, NAMED_SHARE = 0.25, 0.53


@dataclass(frozen=True)
class Slots:
    """`values` [B, slots]: sense ids. `cast` [B] indexes CASTS, the last two are [B] of bool.

    `turns` [B, episodes]: the episodes are narrated in ascending order of these.
    """

    values: np.ndarray
    turns: np.ndarray
    cast: np.ndarray
    hero_female: np.ndarray
    hero_unmarked: np.ndarray  # the hero's name is of no gender


@cache
def _table(*names: str, words: tuple[str, ...] | None = None) -> np.ndarray:
    """Sense ids [GRID] of the lists `names`, each as often as it is drawn.

    Lists of one call are equally heavy. `words` keeps some words of a list only.
    """
    ids, weights = [], []
    for name in names:
        entry = lexicon.LISTS[name]
        for word, share in zip(entry.words, lexicon.shares(entry), strict=True):
            if words is None or word in words:
                ids.append(lexicon.sense_ids()[name, word])
                weights.append(share)
    edges = np.cumsum(weights) / np.sum(weights)
    # Rounding down cannot overshoot: the point of every cell lies strictly below 1.
    cells = np.searchsorted(edges, (np.arange(GRID) + 0.5) / GRID, side="right")
    return np.array(ids, dtype=np.int64)[np.minimum(cells, len(ids) - 1)]


@cache
def _tables(*choices: tuple[str, ...]) -> np.ndarray:
    """One row of `_table` per alternative, to be indexed [kind, draw]."""
    return np.stack([_table(*names) for names in choices])


@cache
def _kin_tables() -> np.ndarray:
    words = lexicon.LISTS["grown_up"].words
    female = tuple(word for word in words if word in lexicon.FEMALE_GROWN_UPS)
    male = tuple(word for word in words if word not in lexicon.FEMALE_GROWN_UPS)
    return np.stack([_table("grown_up", words=male), _table("grown_up", words=female)])


def _sense(name: str, word: str) -> int:
    return lexicon.sense_ids()[name, word]


def _by_gender(female: np.ndarray, his: tuple[str, str], hers: tuple[str, str]) -> np.ndarray:
    return np.where(female, _sense(*hers), _sense(*his))


def _kinds(draws: np.ndarray) -> np.ndarray:
    """0 and 1 for the two kinds, 2 for neither."""
    edges = np.array([FIRST_KIND, FIRST_KIND + SECOND_KIND]) * GRID
    return np.searchsorted(edges, draws, side="right")


def _latest_kind(
    episode: str, turns: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """The kind of the place where `episode` happens; 2 if no place has been mentioned."""
    now, scene, travel = (
        turns[:, list(EPISODES).index(name)] for name in (episode, "scene", "travel")
    )
    in_second = (travel < now) & ((scene > now) | (scene < travel))
    return np.where(in_second, second, np.where(scene < now, first, 2))


@cache
def _following() -> np.ndarray:
    """Per sense, the next one of its list, around."""
    follow = np.empty(len(lexicon.senses()), dtype=np.int64)
    for name, entry in lexicon.LISTS.items():
        ids = [_sense(name, word) for word in entry.words]
        follow[ids] = np.roll(ids, -1)
    return follow


def _other_than(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """`second`, or its neighbour where it repeats `first`."""
    return np.where(second == first, _following()[second], second)


def draw(rng: np.random.Generator, count: int) -> Slots:
    """The slots of `count` documents, from a fixed number of draws."""
    grid = iter(rng.integers(0, GRID, size=(64, count), dtype=np.int64))
    values: dict[str, np.ndarray] = {}

    def pick(*names: str) -> np.ndarray:
        drawn: np.ndarray = _table(*names)[next(grid)]
        return drawn

    def pick_by(kind: np.ndarray, *choices: tuple[str, ...]) -> np.ndarray:
        drawn: np.ndarray = _tables(*choices)[kind, next(grid)]
        return drawn

    def pick_kind(first: str, second: str, neither: str) -> tuple[np.ndarray, np.ndarray]:
        kind = _kinds(next(grid))
        return pick_by(kind, (first,), (second,), (neither,)), kind

    # People.
    hero_female = next(grid) < FEMALE_HERO * GRID
    cast = np.searchsorted(
        np.array([SOLO_SHARE, SOLO_SHARE + NAMED_SHARE]) * GRID, next(grid), side="right"
    )
    unmarked = {}
    for person, female in (("H", hero_female), ("F", ~hero_female)):
        unmarked[person] = next(grid) < NAME_OF_NO_KIND * GRID
        kind = np.where(unmarked[person], 2, np.where(female, 0, 1))
        values[person] = pick_by(kind, *((name,) for name in lexicon.NAME_LISTS))
        for slot, his, hers in (
            *(("s", "he", "she"), ("o", "him", "her"), ("p", "his", "her")),
            ("r", "himself", "herself"),
        ):
            words = ("male_pronoun", his), ("female_pronoun", hers)
            values[f"{person}{slot}"] = _by_gender(female, *words)
        values[f"{person}c"] = _by_gender(female, ("boy", "boy"), ("girl", "girl"))
    values["F"] = _other_than(values["F"], values["H"])
    kin = _kin_tables()[(~hero_female).astype(np.int64), next(grid)]
    values["F"] = np.where(cast == 2, kin, values["F"])

    # Nouns, and what depends on their kind.
    values["animal"], kind = pick_kind("farm_animal", "wild_animal", "other_animal")
    farm, wild = ("farm_home",), ("wild_home",)
    values["home"] = pick_by(kind, farm, wild, (*farm, *wild))
    values["deed"] = pick("animal_deed")
    values["food"], kind = pick_kind("sweet_food", "savoury_food", "other_food")
    tastes = (("sweet_taste",), ("savoury_taste",), ("sweet_taste", "savoury_taste"))
    values["taste1"], values["taste2"] = pick_by(kind, *tastes), pick_by(kind, *tastes)
    values["eat"] = pick("eat")
    values["object"], kind = pick_kind("toy", "tool", "other_object")
    values["use"] = pick_by(kind, ("toy_deed",), ("tool_deed",), ("toy_deed", "tool_deed"))
    values["take"], values["inf"] = pick("take"), pick("infinitive")
    values["container"] = pick("container")
    acts = (("indoor_verb",), ("outdoor_verb",), ("indoor_verb", "outdoor_verb"))
    kinds = []
    for place, first, second in (("place", "act1", "act2"), ("place2", "act3", "act4")):
        values[place], kind = pick_kind("indoor_place", "outdoor_place", "other_place")
        values[first], values[second] = pick_by(kind, *acts), pick_by(kind, *acts)
        kinds.append(kind)
    turns = rng.random((count, len(EPISODES)))
    for slot, episode in (("act_mood", "mood"), ("act_object", "object")):
        values[slot] = pick_by(_latest_kind(episode, turns, *kinds), *acts)

    # Moods and the rest.
    mood = (next(grid) >= GRID // 2).astype(np.int64)
    moods = (("glad_adjective",), ("gloomy_adjective",))
    values["feel1"], values["feel2"] = pick_by(mood, *moods), pick_by(mood, *moods)
    values["react"] = pick_by(mood, ("glad_deed",), ("gloomy_deed",))
    for slot, name in (
        *(("size", "size"), ("colour", "colour"), ("see", "see"), ("see2", "see")),
        *(("go", "go"), ("go2", "go"), ("say", "speech_verb"), ("say2", "speech_verb")),
        *(("adverb", "adverb"), ("time", "time")),
    ):
        values[slot] = pick(name)
    values["like"] = np.where(
        next(grid) < GRID // 2, _sense("plain_verb", "like"), _sense("plain_verb", "see")
    )
    ends = np.array([_sense("stop", "."), _sense("stop", "!")])
    for slot in ("e1", "e2", "e3", "e4"):
        values[slot] = ends[(next(grid) < 0.3 * GRID).astype(np.int64)]
    for first, second in (("act1", "act2"), ("act3", "act4"), ("feel1", "feel2")):
        values[second] = _other_than(values[second], values[first])
    values["taste2"] = _other_than(values["taste2"], values["taste1"])

    # Three different words of one topic's lexicon.
    edges = np.cumsum(lexicon.TOPIC_SHARES)[:-1] * GRID
    topic = np.searchsorted(edges, next(grid), side="right")
    ids = np.array(
        [[_sense(name, word) for word in lexicon.LISTS[name].words] for name in lexicon.TOPICS]
    )
    order = np.argsort(rng.random((count, ids.shape[1])), axis=1)
    for position, slot in enumerate(("t1", "t2", "t3")):
        values[slot] = ids[topic, order[:, position]]

    packed = np.stack([values[slot] for slot in SLOTS], axis=1)
    return Slots(packed, turns, cast, hero_female, unmarked["H"])
