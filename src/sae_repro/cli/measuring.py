"""The size of a text before a study of it is made: documents and tokens of each split."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_repro.errors import StudyError, shown
from sae_repro.hub import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from sae_repro.corpus.found import Found
    from sae_repro.corpus.sources import TextSource
    from sae_repro.params import Corpus

SAMPLE = 20_000  # documents that are tokenised; of the others the characters are counted
SMALL_TOKENS = 100_000  # a text with fewer holds out larger shares
SMALL_SHARES = {"validation": 0.2, "calibration": 0.1}
MIN_TOKENS = {"train": 10_000, "calibration": 1_000, "validation": 2_000}
MIN_DOCUMENTS = {"train": 20, "calibration": 3, "validation": 10}
PURPOSES = {
    "train": "to train on",
    "calibration": "to set thresholds on",
    "validation": "to measure on, halves of which choose and score",
}
TOKENS_PER_LATENT = 20
CHARACTERS_PER_TOKEN = 4  # where the tokenizer can't be had


@dataclass(frozen=True)
class TextSize:
    """Documents and tokens by split."""

    name: str
    documents: Mapping[str, int]
    """Copies, which share a split, among them."""
    tokens: Mapping[str, int]
    longest: int
    """Tokens that nine in ten documents do not exceed."""
    characters: int
    """Of all documents."""
    shares: Mapping[str, float]
    """corpus.validation and corpus.calibration by which it is split."""
    found: "Found | None" = None
    """What else was found; None where the text could not be read."""
    different: Mapping[str, int] | None = None
    """Documents without copies of others, of a text that was read."""

    def __str__(self) -> str:
        return f"{sum(self.documents.values()):,} documents, {sum(self.tokens.values()):,} tokens"

    @property
    def enough(self) -> Mapping[str, int]:
        """Documents that count where some are needed."""
        return self.documents if self.different is None else self.different


Tokenise = Callable[[list[str]], list[int]]
"""Tokens of each text."""


def measure(
    texts: "TextSource", seed: int, tokenise: Callable[[list[str]], Tokenise] | None
) -> TextSize:
    """Read `texts` once; `tokenise` makes, from a sample of them, what counts a text's tokens.

    Documents are split as the stage `corpus` splits them. None: four characters are a token.
    """
    import numpy as np

    from sae_repro.corpus.found import Found
    from sae_repro.numerics.hashing import fingerprint

    marks: list[bytes] = []
    characters: list[int] = []
    sample: list[str] = []
    for document in texts:
        marks.append(fingerprint(document.text.encode(), seed))
        characters.append(len(document.text))
        if len(sample) < SAMPLE:
            sample.append(document.text)
    counts = [] if tokenise is None else tokenise(sample)(sample)
    counted = sum(characters[: len(counts)])
    ratio = sum(counts) / counted if counts else 1 / CHARACTERS_PER_TOKEN
    tokens = [*map(float, counts), *(n * ratio for n in characters[len(counts) :])]
    # the stage corpus leaves them out: they have no token to predict
    short = {n for n, count in enumerate(counts) if count < 2}
    if short:
        texts.skipped["one_token"] = len(short)
        marks = [mark for n, mark in enumerate(marks) if n not in short]
        tokens = [count for n, count in enumerate(tokens) if n not in short]
    found = Found(len(marks), texts.skipped, len(marks) - len(set(marks)), texts.paragraphs)
    if not marks:
        raise StudyError(f"{shown(texts.name)}: {found}; {found.advice()}")
    tokens_n = np.array(tokens)
    for shares in ({}, SMALL_SHARES):
        corpus = _splitting(shares)
        splits = np.array([_split(mark, corpus) for mark in marks])
        first = Counter(_split(mark, corpus) for mark in set(marks))
        size = TextSize(
            name=shown(texts.name, most=300),
            documents={split: int((splits == split).sum()) for split in MIN_TOKENS},
            tokens={split: int(tokens_n[splits == split].sum()) for split in MIN_TOKENS},
            longest=int(np.quantile(tokens_n, 0.9)),
            characters=sum(characters),
            shares={"validation": corpus.validation, "calibration": corpus.calibration},
            found=found,
            different={split: first[split] for split in MIN_TOKENS},
        )
        if tokens_n.sum() >= SMALL_TOKENS:
            break
    return size


def counter(tokenizer: "PreTrainedTokenizerFast") -> Tokenise:
    """What counts the tokens of texts; StudyError where `tokenizer` has none for a part of one."""

    def count(texts: list[str]) -> list[int]:
        try:
            encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library's own errors have no class
            raise StudyError(
                f"{tokenizer.name_or_path}: the tokenizer can't read the text "
                f"({one_line(error)}); give its tokenizer.json a token for what is unknown "
                "(unk_token), or choose a model of this language"
            ) from None
        return [len(encoding.ids) for encoding in encoded]

    return count


def _splitting(shares: Mapping[str, float]) -> "Corpus":
    from sae_repro.params import Corpus

    source = {"kind": "stories", "n_documents": 100}  # only the shares are read
    return Corpus.model_validate({"source": source, **shares})


def _split(mark: bytes, corpus: "Corpus") -> str:
    from sae_repro.corpus.split import split_of

    return split_of(mark, corpus)


def check_enough(size: TextSize, d_model: int) -> None:
    """StudyError, with what is needed, where a split has too little for the smallest grid."""
    tokens = dict(MIN_TOKENS)
    width = 2 * d_model
    seen = TOKENS_PER_LATENT * width
    wide = ""
    if seen > tokens["train"]:
        tokens["train"] = seen
        wide = f"; {seen:,} is {TOKENS_PER_LATENT} for each of the fewest latents, K = {width:,}"
    if not any(_lacking(size, tokens)):
        return
    validation, calibration = size.shares["validation"], size.shares["calibration"]
    share = {"train": 1 - validation - calibration, "calibration": calibration,
             "validation": validation}  # fmt: skip
    documents = max(MIN_DOCUMENTS[split] / share[split] for split in share)
    needed = max(tokens[split] / share[split] for split in share)
    different = "different " if size.found and size.found.duplicates else ""
    details, advice = ("", "") if size.found is None else (
        size.found.details(), f"; {size.found.advice()}"
    )  # fmt: skip
    raise StudyError(
        f"{size.name}: {size} found{details}; at least about {_up(documents):,} documents and "
        f"{_up(needed):,} tokens are needed: "
        + "; ".join(
            f"{tokens[split]:,} tokens in {MIN_DOCUMENTS[split]} {different}documents {purpose} "
            f"({share[split]:.0%} of them, here {size.tokens[split]:,} in "
            f"{size.enough[split]:,})"
            for split, purpose in PURPOSES.items()
        )
        + wide
        + advice
    )


def _lacking(size: TextSize, tokens: Mapping[str, int]) -> Iterator[bool]:
    for split, documents in MIN_DOCUMENTS.items():
        yield size.enough[split] < documents or size.tokens[split] < tokens[split]


def _up(count: float) -> int:
    """`count` rounded up to two digits."""
    unit = 10 ** max(0, len(str(int(count))) - 2)
    return int(-(-count // unit) * unit)
