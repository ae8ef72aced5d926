"""Small stories with every token labelled: the text and the ground truth of the embedded study.

Labels say what a reader can know *at* a token, having read it and all before it. A class holds on
the word itself, by its use (a homograph's spelling does not settle it). A state holds from the
token that shows it: `topic:*` from the first word of the topic's lexicon, `scene:*` from the
word for an indoor or outdoor place until the next place, `inside_quotes` from the opening mark to
the last token before the closing one, `speaker:*` inside quotes whose speaker was named before.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from sae_repro.stories import lexicon, templates
from sae_repro.stories.lexicon import vocabulary
from sae_repro.stories.slots import Slots, draw

__all__ = ["BLOCK", "Concept", "Stories", "concepts", "generate", "vocabulary"]

BLOCK = 1024  # documents drawn together; part of the definition of a stream
MIN_LENGTH, MAX_LENGTH, LONGEST_SENTENCE = 30, 63, 16


@dataclass(frozen=True)
class Concept:
    """`kind` is "class" (what the token is) or "state" (where it stands)."""

    name: str
    parent: str | None
    kind: str


@dataclass(frozen=True)
class Stories:
    """Documents end to end.

    tokens: uint16 [T], positions in `vocabulary()`.
    starts: int64 [documents + 1]; document i is `tokens[starts[i]:starts[i + 1]]`.
    labels: uint8 [T, ceil(C / 8)], the concepts of each token in the order of `concepts()`:
        `np.unpackbits(labels, axis=1, count=C, bitorder="little")`.
    """

    tokens: np.ndarray
    starts: np.ndarray
    labels: np.ndarray


def concepts() -> list[Concept]:
    """All labelled concepts: classes, parents before children, then states."""
    states = (
        "inside_quotes",
        *(f"topic:{topic}" for topic in lexicon.TOPICS),
        *(f"scene:{scene}" for scene in lexicon.SCENES),
        *(f"speaker:{speaker}" for speaker in lexicon.SPEAKERS),
    )
    classes = lexicon.concept_parents().items()
    return [
        *(Concept(name, parent, "class") for name, parent in classes),
        *(Concept(name, None, "state") for name in states),
    ]


def generate(n_documents: int, seed: int, first: int = 0) -> Stories:
    """Documents `first` to `first + n_documents - 1` of the stream `seed`.

    A document depends on the seed and its position in the stream alone, never on how a stream is
    cut into calls. Raises ValueError for a negative argument.
    """
    if min(n_documents, seed, first) < 0:
        raise ValueError(
            f"n_documents, seed and first must be >= 0, not {n_documents}, {seed}, {first}"
        )
    last = first + n_documents
    parts = [_empty()]
    for block in range(first // BLOCK, -(-last // BLOCK)):
        origin = block * BLOCK
        whole = _block(seed, block)
        parts.append(_cut(whole, max(first - origin, 0), min(last - origin, BLOCK)))
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    return Stories(
        tokens=np.concatenate([part.tokens for part in parts]),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=np.concatenate([part.labels for part in parts]),
    )


def _empty() -> Stories:
    width = _class_table().shape[1]
    return Stories(
        np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros((0, width), dtype=np.uint8)
    )


def _cut(stories: Stories, first: int, last: int) -> Stories:
    start, stop = stories.starts[first], stories.starts[last]
    return Stories(
        stories.tokens[start:stop],
        stories.starts[first : last + 1] - start,
        stories.labels[start:stop],
    )


def _block(seed: int, block: int) -> Stories:
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, block], dtype=np.uint64)))
    slots = draw(rng, BLOCK)
    compiled = templates.compiled()

    # Sentences: as many as fit into the length drawn. MIN_LENGTH holds because no sentence has
    # more than LONGEST_SENTENCE tokens and the sentences of a story never run out.
    chosen = _choose_sentences(rng, slots)
    lengths = np.where(chosen >= 0, compiled.lengths[chosen], 0)
    longest = rng.integers(MIN_LENGTH + LONGEST_SENTENCE, MAX_LENGTH + 1, size=(BLOCK, 1))
    fits = (np.cumsum(lengths, axis=1) <= longest) & (chosen >= 0)
    starts = np.concatenate([[0], np.cumsum((lengths * fits).sum(axis=1))])

    # Tokens: the sentences' symbols end to end, slots looked up in their document.
    document, template = np.nonzero(fits)[0], chosen[fits]
    size = compiled.lengths[template]
    ends = np.cumsum(size)
    symbol = np.repeat(compiled.offsets[template] - (ends - size), size) + np.arange(ends[-1])
    document = np.repeat(document, size)
    sense = compiled.symbols[symbol]
    is_slot = sense >= len(lexicon.senses())
    sense[is_slot] = slots.values[document[is_slot], sense[is_slot] - len(lexicon.senses())]

    # A state lasts from the latest evidence for it; before any, "latest" is the document's start.
    latest = _evidence_table()[sense]
    position = np.arange(len(sense))
    begin = starts[document]
    last_place = np.maximum.accumulate(np.where(latest[:, 0] > 0, position, begin))
    last_topic = np.maximum.accumulate(np.where(latest[:, 1] > 0, position, begin))
    speaker = _speakers(slots)[document, compiled.quotes[symbol]]
    n_places, n_topics = len(lexicon.SCENES) + 2, len(lexicon.TOPICS) + 1
    state = (speaker * n_places + latest[last_place, 0]) * n_topics + latest[last_topic, 1]
    return Stories(
        tokens=_word_table()[sense],
        starts=starts.astype(np.int64),
        labels=_class_table()[sense] | _state_table()[state],
    )


def _choose_sentences(rng: np.random.Generator, slots: Slots) -> np.ndarray:
    """Template ids [BLOCK, sentences] in narrated order, -1 where there is none."""
    groups = templates.compiled().groups
    n_episodes = len(templates.EPISODES)

    def choose(group: templates.Group) -> np.ndarray:
        options = groups[group]
        counts = np.array([len(option) for option in options])
        padded = np.full((len(options), max(*counts, 1)), -1)
        for row, option in zip(padded, options, strict=True):
            row[: len(option)] = option
        index = (rng.random(BLOCK) * counts[slots.cast]).astype(np.int64)
        chosen: np.ndarray = padded[slots.cast, index]
        return chosen

    acquainted = choose(templates.OPENING_KNOWN)
    introduced = choose(templates.OPENING_TOLD)
    opening = np.where(slots.hero_unmarked, introduced, acquainted)
    episodes = np.full((BLOCK, n_episodes, 2), -1)
    for number, episode in enumerate(templates.EPISODES.values()):
        for part, group in enumerate(episode):
            episodes[:, number, part] = choose(group)
    order = np.argsort(slots.turns, axis=1)
    narrated = np.take_along_axis(episodes, order[:, :, None], axis=1).reshape(BLOCK, -1)
    return np.column_stack([opening, choose(templates.ARRIVAL), narrated])


def _speakers(slots: Slots) -> np.ndarray:
    """Speaker codes [BLOCK, quote state]: outside, inside and unknown, the hero's, the other's."""
    woman = slots.hero_female.astype(np.int64)
    other = np.where(slots.cast == templates.CASTS.index("kin"), 4, 2) + (1 - woman)
    return np.stack([np.zeros_like(woman), np.ones_like(woman), 2 + woman, other], axis=1)


@cache
def _positions() -> dict[str, int]:
    return {concept.name: position for position, concept in enumerate(concepts())}


def _pack(rows: list[list[str]]) -> np.ndarray:
    """Bits [rows, ceil(C / 8)] with the named concepts set."""
    bits = np.zeros((len(rows), len(_positions())), dtype=bool)
    for row, names in zip(bits, rows, strict=True):
        row[[_positions()[name] for name in names]] = True
    return np.packbits(bits, axis=1, bitorder="little")


@cache
def _word_table() -> np.ndarray:
    """Sense -> token."""
    ids = {word: index for index, word in enumerate(vocabulary())}
    return np.array([ids[word] for _, word in lexicon.senses()], dtype=np.uint16)


@cache
def _class_table() -> np.ndarray:
    """Sense -> packed classes."""
    return _pack([list(lexicon.sense_concepts(*sense)) for sense in lexicon.senses()])


@cache
def _evidence_table() -> np.ndarray:
    """Sense -> evidence: [:, 0] of the place (3: of no kind), [:, 1] of the topic; 0: none."""
    places = {f"{scene}_place": 1 + i for i, scene in enumerate(lexicon.SCENES)}
    places["other_place"] = len(places) + 1
    topics = {topic: 1 + i for i, topic in enumerate(lexicon.TOPICS)}
    return np.array([(places.get(n, 0), topics.get(n, 0)) for n, _ in lexicon.senses()])


@cache
def _state_table() -> np.ndarray:
    """(speaker code, place, topic), the last running fastest -> packed states."""
    inside = ["inside_quotes"]
    people = [
        [*inside, f"speaker:{age}", f"speaker:{gender}"]
        for age in ("child", "grown_up")
        for gender in ("male", "female")
    ]
    speakers = [[], inside, *people]
    places = [[], *([f"scene:{scene}"] for scene in lexicon.SCENES), []]
    topics = [[], *([f"topic:{topic}"] for topic in lexicon.TOPICS)]
    return _pack([s + p + t for s in speakers for p in places for t in topics])
