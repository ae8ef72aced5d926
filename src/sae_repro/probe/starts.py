"""First tokens of rows: candidates of the tokenizer, compared on the text that a study reads.

A model was trained with one separator before its documents, and its tokenizer need not call that
BOS. Behind another token the first words of a row become attention sinks: activations of a norm far
above all others (Sun et al. 2024, "Massive activations in large language models"), which no SAE
should be trained on.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.errors import StudyError
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.hooked import point_of, vectors
from sae_repro.readers.row_start import row_start
from sae_repro.readers.windows import windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

SEPARATORS = ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>")
"""Tokens that models are trained with between documents, whatever their tokenizer calls BOS."""
ROWS, POSITIONS = 128, 16
"""Rows of a comparison, and tokens of each: sinks stand at a row's beginning."""
ROWS_AT_ONCE = 16  # logits of a large vocabulary would fill the memory
CLEAR = 2.0
"""Standard errors by which one start's cross-entropy must be lower to be called the better one."""
MORE_SINKS = 1e-3
"""Share of tokens beyond which one start has more sinks than another."""


@dataclass(frozen=True)
class Start:
    """A value of `extract.prepend_bos`, and the token that it stands for; None: no token."""

    value: bool | str
    token: int | None
    text: str


@dataclass(frozen=True)
class Measured:
    """A start on the rows of a comparison."""

    start: Start
    loss_n: npt.NDArray[np.float64]
    """Cross-entropy of each row, nats a token; the same tokens whatever the start."""
    sinks: float
    """Share of tokens, the first position of a row left out, that are sinks at any hook."""
    at: dict[int, float]
    """Share of rows in which a position, counted from 0 with the start, is a sink."""

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return float(self.loss_n.mean())


def starts_of(
    tokenizer: "PreTrainedTokenizerFast", now: bool | str | None = None
) -> Iterator[Start]:
    """Candidates: `now`, `true`, other separators that the vocabulary has, and none.

    `now` is a value of `extract.prepend_bos`; None: `default_of` the tokenizer.
    """
    now = default_of(tokenizer) if now is None else now
    vocabulary = tokenizer.get_vocab()
    default = row_start(tokenizer, default_of(tokenizer))
    values = [now, *SEPARATORS]
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            text = str(tokenizer.convert_ids_to_tokens(token))
            values.insert(1, True if token == default else text)
    seen: set[int | None] = set()
    for value in (*values, False):
        if isinstance(value, str) and value != now and value not in vocabulary:
            continue
        token = row_start(tokenizer, value)
        if token not in seen:
            yield Start(value, token, str(tokenizer.convert_ids_to_tokens(token))
                        if token is not None else "none")  # fmt: skip
            seen.add(token)


def default_of(tokenizer: "PreTrainedTokenizerFast") -> bool:
    """The default of `extract.prepend_bos`; false for a tokenizer with neither BOS nor EOS."""
    return tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None


def compare(
    subject: "TransformerBridge",
    corpus: TokenDocuments,
    starts: Sequence[Start],
    *,
    hooks: Sequence[str],
    context: int,
    limit: float,
    what: str,
) -> list[Measured]:
    """Each of `starts` before the first rows of the training documents; `what` begins an error.

    A token is a sink where its norm at any of `hooks` is more than `limit` times the median there.
    None is measured where fewer than two rows have tokens to compare.
    """
    tokens_nl, length_n = _rows(corpus, context)
    if len(length_n) < 2:
        return []
    return [_measure(subject, tokens_nl, length_n, start, hooks, limit, what) for start in starts]


def best(measured: Sequence[Measured]) -> Measured:
    """The start to use: the first one, where no other is clearly better.

    Better is one of clearly lower cross-entropy, by the differences of the same rows, without more
    sinks; or with fewer of them, without a clearly higher cross-entropy. Of several the one of the
    lowest cross-entropy.
    """
    present, *others = measured
    better = [m for m in others if _better(m, present)]
    return min(better, key=lambda m: m.loss, default=present)


def _better(one: Measured, other: Measured) -> bool:
    difference_n = one.loss_n - other.loss_n
    mean = float(difference_n.mean())
    error = CLEAR * float(difference_n.std(ddof=1)) / math.sqrt(len(difference_n))
    if one.sinks > other.sinks + MORE_SINKS:
        return False
    return mean < -error or (one.sinks < other.sinks - MORE_SINKS and mean <= error)


def _rows(
    corpus: TokenDocuments, context: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(the first tokens of the first rows of `context` [n, l], how many each has)."""
    batch = next(
        windows(
            corpus,
            corpus.split("train"),
            context=context,
            bos=None,
            special=(),
            pad=0,
            batch_size=ROWS,
        ),
        None,
    )
    if batch is None:
        return np.empty((0, 0), dtype=np.int64), np.empty(0, dtype=np.int64)
    # a row that starts with a token has one less of the text
    length = np.minimum(batch.length, min(POSITIONS, context - 1))
    long = length >= 3  # one token to read beyond the first, and one to predict
    return batch.tokens[long, : length[long].max(initial=0)], length[long]


def _measure(
    subject: "TransformerBridge",
    tokens_nl: npt.NDArray[np.int64],
    length_n: npt.NDArray[np.int64],
    start: Start,
    hooks: Sequence[str],
    limit: float,
    what: str,
) -> Measured:
    import torch

    first = int(start.token is not None)
    if start.token is not None:
        tokens_nl = np.insert(tokens_nl, 0, start.token, axis=1)
    device: Any = subject.cfg.device
    losses, norms = [], []
    for begin in range(0, len(tokens_nl), ROWS_AT_ONCE):
        tokens = torch.from_numpy(tokens_nl[begin : begin + ROWS_AT_ONCE]).to(device)
        with torch.inference_mode():
            points = list(dict.fromkeys(map(point_of, hooks)))
            logits, cache = subject.run_with_cache(tokens, names_filter=points)
            missing = [hook for hook in hooks if point_of(hook) not in cache]
            if missing:
                raise StudyError(
                    f"{what}: {missing[0]}: a run of this model never comes by it; choose another"
                )
            # the second token of the text is the first one that every start has predicted
            predicted = logits[:, first:-1].float().log_softmax(-1)
            loss = -predicted.gather(-1, tokens[:, first + 1 :, None])[..., 0]
            norm = torch.stack(
                [vectors(h, cache[point_of(h)]).float().norm(dim=-1) for h in hooks], dim=-1
            )
        losses.append(loss.double().cpu().numpy())
        norms.append(norm.double().cpu().numpy())
    loss_nl, norm_nlh = np.concatenate(losses), np.concatenate(norms)
    told = np.arange(1, loss_nl.shape[1] + 1) < length_n[:, None]
    column = np.arange(norm_nlh.shape[1])
    kept = (column > 0) & (column < length_n[:, None] + first)
    median_h = np.median(norm_nlh[kept], axis=0)
    sink = (norm_nlh > limit * median_h).any(axis=-1) & kept
    share_l = sink.sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    return Measured(
        start,
        (loss_nl * told).sum(axis=1) / told.sum(axis=1),
        float(sink.sum() / kept.sum()),
        {int(p): float(share_l[p]) for p in np.flatnonzero(share_l)},
    )
