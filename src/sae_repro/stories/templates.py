"""The sentences of the stories, and their compilation to arrays.

A document is an opening, the arrival of a second person (in most), then episodes in random order.
An episode is one to two sentences, each picked from a group of alternatives that fit the cast.
The rules that make a story predictable to a reader who keeps track of it:

- Pronouns: two people in a story are never of one gender. A possessive is the subject's own, an
  object pronoun the other person. No verb or preposition takes both, so the case is known too.
- Names: a bare name, or one after "then" or "soon", is the hero's; "but" brings on the second
  person; elsewhere a sentence names whoever is not its subject, and a quote addresses whoever
  does not speak.
- Quotes: one sentence each, closed right after its `.`, `!` or `?`. The same marks end sentences
  outside quotes, so only a reader who knows that a quote is open knows what follows.

In a template `{slot}` is filled per document (see `story_slots`), anything else is a word. An
opening quote is written `"H` or `"F` if the text has said that the hero or the second person
speaks, and `"?` if the speaker is named only afterwards. The closing mark is `"`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from sae_repro.stories import lexicon

CASTS = ("solo", "named", "kin")  # the hero alone, with a child of a name, with a grown-up
ANY, DUO, SOLO, NAMED, KIN = (0, 1, 2), (1, 2), (0,), (1,), (2,)
Group = tuple[tuple[tuple[int, ...], str], ...]

OPENING_KNOWN: Group = (
    (ANY, "once there was a {Hc} named {H} {e4}"),
    (ANY, "one {time} {H} {go2} home very early {e4}"),
    (ANY, "this is a story about {H} {e4}"),
    (ANY, "{H} was {feel1} this {time} {e4}"),
)
# A name of no kind: the text has to tell the hero's gender.
OPENING_TOLD: Group = (
    (ANY, "once there was a {Hc} named {H} {e4}"),
    (ANY, "this is a story about a {Hc} named {H} {e4}"),
    (ANY, "a {Hc} named {H} {go2} home very early {e4}"),
)
ARRIVAL: Group = (
    (NAMED, "{Hs} had a friend , a {Fc} named {F} {e1}"),
    (NAMED, "{Hs} {go2} home with a {Fc} named {F} {e1}"),
    (NAMED, "{Hs} was with a {Fc} named {F} this {time} {e1}"),
    (KIN, "{Hs} lived with {F} {e1}"),
    (KIN, "{Hs} {go2} home with {F} this {time} {e1}"),
    (KIN, "{F} was at home with {Ho} {e1}"),
)

EPISODES: dict[str, tuple[Group, ...]] = {
    "scene": (
        (
            (ANY, "{Hs} {go} to the {place} {e1}"),
            (ANY, "then {H} {go} to the {place} {e1}"),
            (ANY, "{H} was at the {place} this {time} {e1}"),
            (DUO, "{H} and {F} {go} to the {place} {e1}"),
        ),
        (
            (ANY, "there {Hs} {act1} and {act2} {e2}"),
            (ANY, "{H} {act1} there all {time} {e2}"),
            (ANY, "there {Hs} {eat} a {size} {food} {e2}"),
            (DUO, "there {Hs} {act1} with {F} {e2}"),
            (DUO, "but {F} {act1} there {adverb} {e2}"),
            (DUO, "they {act1} and {act2} there {e2}"),
        ),
    ),
    "travel": (
        (
            (ANY, "later {Hs} {go2} to the {place2} {e1}"),
            (ANY, "soon {H} {go2} to the {place2} with the {object} {e1}"),
            (DUO, "soon {H} {go2} to the {place2} with {Fo} {e1}"),
        ),
        (
            (ANY, "there {Hs} {act3} with the {object} {e2}"),
            (ANY, "{H} {act3} and {act4} all {time} {e2}"),
            (DUO, "but {F} {act3} and {act4} {e2}"),
            (DUO, "{H} {act3} with {Fo} {e2}"),
        ),
    ),
    # Animals, food and things come in by the same sentences: what follows depends on the noun.
    "animal": (
        (
            (ANY, "{Hs} {see} a {size} {animal} {e1}"),
            (ANY, "then {H} {see} the {colour} {animal} {e1}"),
            (ANY, "a {size} {animal} looked at {Ho} {e1}"),
            (DUO, "{Hs} {see} the {animal} with {F} {e1}"),
            (DUO, "but {F} {see} the {animal} {e1}"),
        ),
        (
            (ANY, "it {deed} and {go} back to the {home} {e2}"),
            (ANY, "the animal {deed} in the {home} {adverb} {e2}"),
            (ANY, "the {animal} {deed} near the {home} {e2}"),
            (ANY, "where was the {animal} ?"),
        ),
    ),
    "food": (
        (
            (ANY, "{Hs} {see2} a {size} {food} {e1}"),
            (ANY, "then {H} {see2} the {colour} {food} {e1}"),
            (ANY, "{Hs} {eat} a {size} {food} {e1}"),
            (DUO, "{Hs} {eat} the {food} with {F} {e1}"),
            (DUO, "but {F} {eat} the {food} {e1}"),
        ),
        (
            (ANY, "it was very {taste1} {e2}"),
            (ANY, "the food was {taste1} and {taste2} {e2}"),
            (ANY, "the {food} was {taste1} {e2}"),
            (ANY, "where was the {food} ?"),
            (DUO, "{H} gave the {taste1} food to {F} {e2}"),
        ),
    ),
    "object": (
        (
            (ANY, "{Hs} {see} a {size} {object} {e1}"),
            (ANY, "then {H} {see} the {colour} {object} {e1}"),
            (ANY, "{Hs} {take} the {object} from {Hp} {container} {e1}"),
            (ANY, "{H} had a {size} {object} in {Hp} {container} {e1}"),
            (DUO, "but {F} {take} the {object} from {Fp} {container} {e1}"),
        ),
        (
            (ANY, "{Hs} {use} with it all {time} {e2}"),
            (ANY, "{H} {use} with the thing {adverb} {e2}"),
            (ANY, "{H} {act_object} with the {object} {e2}"),
            (ANY, "{Hs} tried to {inf} the {object} {e2}"),
            (ANY, "then {Hs} put it in {Hp} {container} {e2}"),
            (DUO, "{H} gave it to {F} and they {use} {adverb} {e2}"),
        ),
    ),
    "topic": (
        (
            (ANY, "{Hs} dreamed of the {t1} and the {t2} {e1}"),
            (ANY, "then {H} told a story about the {t1} {e1}"),
            (DUO, "{Hs} told {F} about the {t1} and the {t2} {e1}"),
        ),
        (
            (ANY, "the {t3} was {size} and {colour} {e2}"),
            (ANY, "{H} {see2} the {t3} and the {t2} {e2}"),
            (ANY, "what about the {t3} ?"),
            (DUO, "but {F} {see2} the {t3} {e2}"),
        ),
    ),
    "mood": (
        (
            (ANY, "{H} was {feel1} and {feel2} {e1}"),
            (ANY, "{Hs} was very {feel1} {e1}"),
            (ANY, "{H} was {feel1} about the {t2} {e1}"),
            (ANY, "{Hs} was {feel1} about the {animal} {e1}"),
        ),
        (
            (ANY, "{Hs} {react} at the {animal} {e2}"),
            (ANY, "{Hs} {react} and {act_mood} all {time} {e2}"),
            (DUO, "but {F} {act_mood} {adverb} {e2}"),
            (SOLO, "{H} {react} and hugged {Hr} {e2}"),
            (DUO, "{Hs} {react} and hugged {Fo} {e2}"),
            (DUO, "but {F} {react} with {Ho} {e2}"),
        ),
    ),
    "speech": (
        (
            (ANY, '{H} {say} , "H i {like} the {object} {e3} "'),
            (ANY, '{Hs} {say} , "H the {animal} {deed} in the {home} {e3} "'),
            (ANY, 'then {H} {say} , "H where is the {t1} ? "'),
            (DUO, '{Hs} {say} , "H come here , {F} {e3} "'),
            (DUO, 'but {F} {say} , "F look at the {object} , {H} {e3} "'),
            (NAMED, 'but {F} {say} , "F i {like} the {t1} , {H} {e3} "'),
            (KIN, 'but {F} {say} , "F be careful , dear {e3} "'),
            (KIN, 'but {F} {say} , "F here is your {food} , dear {e3} "'),
        ),
    ),
    "remark": (
        (
            (ANY, '"? where was the {animal} ? " {say2} {H} {e2}'),
            (ANY, '"? the {food} was {taste1} {e3} " {say2} {H} {e2}'),
            (ANY, '"? what about the {t2} ? " {say2} {H} {e2}'),
            (DUO, '"? look at the {object} , {F} {e3} " {say2} {H} {e2}'),
            (DUO, '"? thank you , {H} {e3} " {say2} {F} {e2}'),
            (KIN, '"? come here , dear {e3} " {say2} {F} {e2}'),
        ),
    ),
}

GROUPS: tuple[Group, ...] = (
    OPENING_KNOWN,
    OPENING_TOLD,
    ARRIVAL,
    *(group for episode in EPISODES.values() for group in episode),
)
SLOTS = tuple(
    dict.fromkeys(
        word[1:-1]
        for group in GROUPS
        for _, template in group
        for word in template.split()
        if word.startswith("{")
    )
)


@dataclass(frozen=True)
class Compiled:
    """All templates end to end.

    `symbols`: a sense id, or the number of senses plus a slot's position in SLOTS.
    `quotes`: 0 outside quotes, 1 inside, 2 inside and the hero is known to speak, 3 inside and
    the second person is. A quote's opening mark is inside, its closing mark outside.
    Template i lies at `offsets[i] : offsets[i] + lengths[i]`.
    """

    symbols: np.ndarray
    quotes: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    groups: dict[Group, tuple[np.ndarray, ...]]  # per group and cast: the templates that fit


def _symbol(word: str, literals: dict[str, int]) -> int:
    if word.startswith("{"):
        return len(lexicon.senses()) + SLOTS.index(word[1:-1])
    return literals[word]


def _compile_one(template: str, literals: dict[str, int]) -> tuple[list[int], list[int]]:
    symbols, quotes = [], []
    state = 0
    opening = lexicon.sense_ids()["opening_quote", lexicon.QUOTE]
    closing = lexicon.sense_ids()["closing_quote", lexicon.QUOTE]
    for word in template.split():
        if word.startswith(lexicon.QUOTE):
            state = 0 if word == lexicon.QUOTE else 1 + "?HF".index(word[1])
            symbols.append(opening if state else closing)
        else:
            symbols.append(_symbol(word, literals))
        quotes.append(state)
    return symbols, quotes


@cache
def compiled() -> Compiled:
    """Every template as symbols. Raises KeyError for a literal that no list holds."""
    # A homograph is never a literal, so a word's spelling names its sense here.
    literals = {word: index for index, (_, word) in enumerate(lexicon.senses())}
    symbols: list[int] = []
    quotes: list[int] = []
    offsets: list[int] = []
    lengths: list[int] = []
    groups: dict[Group, tuple[np.ndarray, ...]] = {}
    for group in GROUPS:
        first = len(offsets)
        for _, template in group:
            row, state = _compile_one(template, literals)
            offsets.append(len(symbols))
            lengths.append(len(row))
            symbols += row
            quotes += state
        groups[group] = tuple(
            np.array([first + i for i, (casts, _) in enumerate(group) if cast in casts])
            for cast in range(len(CASTS))
        )
    return Compiled(
        symbols=np.array(symbols, dtype=np.int64),
        quotes=np.array(quotes, dtype=np.int64),
        offsets=np.array(offsets, dtype=np.int64),
        lengths=np.array(lengths, dtype=np.int64),
        groups=groups,
    )
