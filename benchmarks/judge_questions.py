"""Questions on concepts of the stories' grammar, with their right answers: see weak_judge."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.judge.protocol import Question, Sampling, key_of
from sae_repro.numerics.hashing import least_hash, uniform_hash
from sae_repro.params import Judge

if TYPE_CHECKING:
    from sae_repro.judge.questions import QuestionMaker

Mask = npt.NDArray[np.bool_]

PROMPTS = Path(__file__).with_name("judge_prompts")
SEED = 0
TEXTS = 10
"""Texts per concept, half of which carry it; in one question, or in one each."""

CONCEPTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "name": ("the first name of a person", ("name",)),
    "animal": ("an animal", ("animal",)),
    "food": ("something to eat", ("food", "eat", "snack", "meal")),
    "place": ("a place", ("place", "location", "room")),
    "toy": ("a toy", ("toy",)),
    "verb": ("a verb", ("verb", "action")),
    "speech_verb": ("a verb of speaking", ("speech", "speak", "say", "verb")),
    "adjective": ("an adjective", ("adjective", "feeling", "emotion")),
    "pronoun": ("a pronoun", ("pronoun",)),
    "determiner": ("an article or another determiner", ("determiner", "article")),
    "preposition": ("a preposition", ("preposition",)),
    "punctuation": ("a punctuation mark", ("punctuation",)),
}
"""Concepts of the grammar: what the judge is told of each, and words that name it in a label."""

GREEDY = "greedy"
SAMPLED = "T 0.7, seed 1"
REPEATED = 4
"""One question in so many is asked a second time."""
ROUNDS = (
    ("choice", "short", GREEDY),
    ("choice", "built-in", GREEDY),
    ("choice", "short", SAMPLED),
    ("label", "built-in", GREEDY),
    ("flags", "built-in", GREEDY),
)
"""(kind, wording, draw) of all questions: see Asked."""


@dataclass(frozen=True)
class Asked:
    """A question with its right answer: a line of the file of questions."""

    key: str
    kind: str
    """choice: 0 or 1 on one text; flags: a list of them on ten; label."""
    wording: str
    """built-in, or short: the file of judge_prompts."""
    draw: str
    """greedy, or the temperature and seed of a sample."""
    item: str
    """What is asked: equal for all wordings and draws."""
    concept: str
    truth: tuple[int, ...]
    """choice, flags: per text; label: (1,) where all marked words carry the concept, else (0,)."""


def questions(study: Path, settings: Judge) -> Iterator[tuple[Asked, Question]]:
    """All questions; those of kind choice are for the model `…:01` of judge_server."""
    carries, makers = _material(study, settings)
    assert settings.model is not None
    for kind, wording, draw in ROUNDS:
        warm = {} if draw == GREEDY else {"temperature": 0.7, "seed": 1}
        sampling = Sampling(max_tokens=settings.max_tokens, **warm)
        items = list(_items(kind, makers[wording], carries))
        for item, concept, question, truth in items[:: REPEATED if draw == SAMPLED else 1]:
            asked = replace(question, sampling=sampling)
            key = key_of(model_of(kind, settings.model), asked)
            yield Asked(key, kind, wording, draw, item, concept, truth), asked


def model_of(kind: str, model: str) -> str:
    """The name of the model that answers questions of this kind."""
    return f"{model}:01" if kind == "choice" else model


def judge_settings(model: str, url: str, max_tokens: int) -> Judge:
    """The judge's settings: few latents and short windows, as a slow model needs them."""
    return Judge(
        kind="http",
        model=model,
        base_url=url,
        max_tokens=max_tokens,
        cut_off="unparsable",
        requests_per_minute=1_000_000,
        in_flight=16,
        timeout_s=3600,
        context_tokens=6,
        extremes=2,
        uniform=4,
        latents=2,
        scores=("detection", "fuzzing"),
    )


def _material(study: Path, settings: Judge) -> "tuple[dict[str, Mask], dict[str, QuestionMaker]]":
    """(the held-out tokens that carry each concept, what makes the questions of each wording)."""
    from sae_repro.concepts.bank import load_bank
    from sae_repro.judge.held_out_tokens import WindowTexts, held_out_tokens
    from sae_repro.judge.prompts import Template, built_in_prompts
    from sae_repro.judge.questions import QuestionMaker
    from sae_repro.readers.documents import TokenDocuments
    from sae_repro.readers.shards import ActivationStore

    corpus = TokenDocuments.load(study / "artifacts/corpus")
    index = ActivationStore(study / "artifacts/extract").index("validation").whole()
    tokens = held_out_tokens(index, corpus, settings.context_tokens, SEED)
    bank = load_bank(corpus.folder, index, SEED)
    carries = {
        concept: bank.labels[:, [bank.names.index(concept)]].toarray()[:, 0].astype(bool)
        for concept in CONCEPTS
    }
    path = PROMPTS / "fuzz.md"
    short = {"fuzz": Template.parse("fuzz", path.read_text(encoding="utf-8"), str(path))}
    prompts = {"built-in": built_in_prompts(), "short": built_in_prompts() | short}
    texts = WindowTexts(tokens, corpus)
    return carries, {
        wording: QuestionMaker(tokens, texts, None, templates, settings, SEED)
        for wording, templates in prompts.items()
    }


def _items(
    kind: str, maker: "QuestionMaker", carries: Mapping[str, Mask]
) -> Iterator[tuple[str, str, Question, tuple[int, ...]]]:
    """(item, concept, question, right answer) of each question of a kind."""
    for concept, (meaning, _) in CONCEPTS.items():
        if kind == "label":
            alike = _least(carries[concept], TEXTS, f"alike/{concept}")
            yield f"{concept} alike", concept, maker.label(alike), (1,)
            # words of ten classes, none twice
            others = [name for name in CONCEPTS if name not in (concept, "speech_verb")]
            mixed = [_least(carries[o], 1, f"mixed/{concept}")[0] for o in others[:TEXTS]]
            yield f"{concept} mixed", concept, maker.label(mixed), (0,)
            continue
        flagged = _flagged(concept, carries[concept])
        n = 1 if kind == "choice" else TEXTS
        for start in range(0, TEXTS, n):
            rows = flagged[start : start + n]
            windows = [_window(row) for row, _ in rows]
            question = maker.flags("fuzz", windows, meaning, marked=True)
            truth = tuple(flag for _, flag in rows)
            yield f"{concept} {start}", concept, question, truth


def _flagged(concept: str, carries: Mask) -> list[tuple[int, int]]:
    """(row, whether it carries the concept) of as many that do as don't, in an order by hash."""
    half = TEXTS // 2
    rows = [
        *((row, 1) for row in _least(carries, half, f"carries/{concept}")),
        *((row, 0) for row in _least(~carries, half, f"lacks/{concept}")),
    ]
    numbers = np.array([row for row, _ in rows])
    order = np.argsort(uniform_hash(SEED, f"weak_judge/order/{concept}", numbers), kind="stable")
    return [rows[i] for i in order]


def _least(mask: Mask, n: int, salt: str) -> list[int]:
    found: list[int] = least_hash(np.flatnonzero(mask), n, SEED, f"weak_judge/{salt}").tolist()
    return found


def _window(row: int) -> Any:
    from sae_repro.judge.latent_windows import Window

    return Window(mark=row, centre=row)
