"""Word patterns that predict a latent: n-grams with wildcards, fit on its top contexts.

After Foote et al. 2023, "Neuron to Graph" (arXiv:2305.19911), as Gao et al. 2024 (arXiv:2406.04093,
section 4.4) use it for SAEs. Patterns come from the fit half of the documents; how well they
predict firing is measured on the test half.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.codes import Codes
from sae_repro.evaluate.contexts import Best
from sae_repro.evaluate.passages import Activate, Passages
from sae_repro.evaluate.summary import Summary
from sae_repro.numerics.bootstrap import mean_interval
from sae_repro.numerics.hashing import least_hash, uniform_hash
from sae_repro.readers.shards import DOCUMENT, POSITION, TOKEN

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Pattern = tuple[int, ...]
"""Token ids that a text must end with; `ANY` fits every token."""

ANY = -1
LATENTS = 64
CONTEXTS = 10  # of the largest activations, per latent
LONGEST = 16  # tokens of a pattern
KEPT = 0.5  # fraction of the activation that a suffix, or a text with a substitute, must keep
SUBSTITUTES = 5
COLUMNS = ["latent", "patterns", "n_patterns", "n_trivial", "n_too_long", "fit_contexts",
           "predicted", "fired", "both"]  # fmt: skip
NAMES = ("explainability_ngram_precision", "explainability_ngram_recall")


@dataclass(frozen=True)
class _Contexts:
    """Contexts in which latents fire: of which latent (its number in the sample), where, and a."""

    group: Ints
    row: Ints
    column: Ints
    activation: Floats

    def __getitem__(self, rows: Mask | Ints) -> "_Contexts":
        return _Contexts(self.group[rows], self.row[rows], self.column[rows], self.activation[rows])


def explainability_ngram(
    activate: Activate,
    canonical: Codes,
    passages: Passages,
    fired_k: npt.NDArray[np.int64],
    fit_d: Mask,
    seed: int,
) -> tuple["pd.DataFrame", Summary]:
    """A row per sampled latent: latent, patterns, n_patterns, n_trivial, n_too_long, fit_contexts,
    predicted, fired, both (test tokens), precision, recall.

    `fit_d` says of every document whether it is in the fit half.

    The sample: the 64 latents with the least hash of (seed, latent) among those with `fired_k` > 0
    [K]. Each gives its 10 largest activations on the fit half. Of such a context, the shortest
    suffix that keeps ≥ 50 % of the activation, of at most 16 tokens, becomes a pattern; a token of
    it becomes a wildcard where 5 substitutes, drawn by hash from the fit half's unigram
    distribution without the token itself, keep more than half of the suffix's activation on
    average. Patterns of wildcards alone are dropped, and counted, as are contexts without such a
    suffix.

    On the test half, a pattern predicts firing on every token with which it ends, inside one row of
    the model's. Precision = both / predicted, recall = both / fired. The metrics are their means
    over latents, each over those where it is defined: precision where something is predicted,
    recall where the latent has fit contexts and fires on the test half. The others are counted.
    """
    import pandas as pd

    latent = _sampled(fired_k, seed)
    firings = _firings(canonical, latent, passages, len(fired_k))
    fit_w = fit_d[passages.document]
    top = _top(firings, fit_w, len(latent))
    length, retained = _shortest(activate, passages, latent, top)
    patterns = _patterns(activate, passages, latent, top, length, retained, fit_d, seed)
    test = passages.mask & ~fit_w[:, None]
    rows = []
    for number, latent_patterns in enumerate(patterns):
        top_rows, firing_rows = top.group == number, firings.group == number
        nontrivial = sorted(pattern for pattern in latent_patterns if set(pattern) != {ANY})
        fires = np.zeros_like(test)
        fires[firings.row[firing_rows], firings.column[firing_rows]] = True
        predicted = _ends_with_any(passages, nontrivial) & test
        rows.append(
            {
                "latent": latent[number],
                "patterns": " | ".join(map(_written, nontrivial)),
                "n_patterns": len(nontrivial),
                "n_trivial": len(latent_patterns) - len(nontrivial),
                "n_too_long": int((top_rows & (length == 0)).sum()),
                "fit_contexts": int(top_rows.sum()),
                "predicted": int(predicted.sum()),
                "fired": int((fires & test).sum()),
                "both": int((fires & predicted).sum()),
            }
        )
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["precision"] = frame["both"] / frame["predicted"].where(frame["predicted"] > 0)
    testable = (frame["fired"] > 0) & (frame["fit_contexts"] > 0)
    frame["recall"] = frame["both"] / frame["fired"].where(testable)
    return frame, _summary(frame, int(test.sum()), seed)


def _sampled(fired_k: Ints, seed: int) -> Ints:
    """The latents with the least hash among those that fire, ascending."""
    alive = np.flatnonzero(fired_k > 0)
    return np.sort(least_hash(alive, LATENTS, seed, "ngram/latents"))


def _firings(canonical: Codes, latent: Ints, passages: Passages, k: int) -> _Contexts:
    """Everywhere that the sampled latents fire, by latent, row and column."""
    number_k = np.full(k, -1)
    number_k[latent] = np.arange(len(latent))
    groups, values, places = [], [], []
    for code in canonical():
        group = number_k[code.latent]
        sampled = group >= 0
        groups.append(group[sampled])
        values.append(code.value[sampled].astype(np.float64))
        places.append(code.index[code.row[sampled]])
    place = np.concatenate(places)
    contexts = _Contexts(
        np.concatenate(groups),
        *passages.find(place[:, DOCUMENT], place[:, POSITION]),
        np.concatenate(values),
    )
    return contexts[np.lexsort((contexts.column, contexts.row, contexts.group))]


def _top(firings: _Contexts, fit_w: Mask, groups: int) -> _Contexts:
    """Each latent's largest activations in rows of the fit half."""
    fit = firings[fit_w[firings.row]]
    best = Best(groups, CONTEXTS)
    best.add(fit.group, -fit.activation, fit.row, fit.column, fit.activation)
    group, _, row, column, activation = best.entries()
    return _Contexts(group, row, column, activation)


def _shortest(
    activate: Activate, passages: Passages, latent: Ints, top: _Contexts
) -> tuple[Ints, Floats]:
    """Per context, the length of the shortest suffix that keeps enough, and what it keeps.

    The length is 0 where no suffix of at most `LONGEST` tokens does.
    """
    length, retained = np.zeros(len(top.group), dtype=np.int64), np.zeros(len(top.group))
    for tokens in range(1, LONGEST + 1):
        candidates = np.flatnonzero((length == 0) & (top.column - tokens + 1 >= passages.first))
        if not len(candidates):
            continue
        text = passages.suffix(top.row[candidates], top.column[candidates], tokens)
        a_n = activate(passages.behind_bos(text), latent[top.group[candidates]])
        enough = a_n >= KEPT * top.activation[candidates]
        length[candidates[enough]], retained[candidates[enough]] = tokens, a_n[enough]
    return length, retained


def _patterns(
    activate: Activate,
    passages: Passages,
    latent: Ints,
    top: _Contexts,
    length: Ints,
    retained: Floats,
    fit_d: Mask,
    seed: int,
) -> list[set[Pattern]]:
    """The different patterns of each sampled latent, trivial ones included."""
    patterns = [set[Pattern]() for _ in latent]
    fit = fit_d[passages.index[:, DOCUMENT]]
    running = np.cumsum(np.bincount(passages.index[fit, TOKEN]))
    for tokens in range(1, LONGEST + 1):
        of_length = length == tokens
        if not of_length.any():
            continue
        contexts = top[of_length]
        text_nt = passages.suffix(contexts.row, contexts.column, tokens)
        mean_nt = _substituted(
            activate, passages, latent[contexts.group], contexts, text_nt, running, seed
        )
        pattern_nt = np.where(mean_nt > KEPT * retained[of_length][:, None], ANY, text_nt)
        for group, pattern in zip(contexts.group.tolist(), pattern_nt.tolist(), strict=True):
            patterns[group].add(tuple(pattern))
    return patterns


def _substituted(
    activate: Activate,
    passages: Passages,
    latent_n: Ints,
    contexts: _Contexts,
    text_nt: Ints,
    running: Ints,
    seed: int,
) -> Floats:
    """Mean activation [n, T] on `text_nt` with substitutes for each of its tokens in turn."""
    n, tokens = text_nt.shape
    variant = np.broadcast_to(text_nt[:, None, None], (n, tokens, SUBSTITUTES, tokens)).copy()
    entry, place, substitute = (axis.ravel() for axis in np.indices((n, tokens, SUBSTITUTES)))
    draw = uniform_hash(
        seed, "ngram/substitutes", latent_n[entry], contexts.row[entry], contexts.column[entry],
        place, substitute,
    )  # fmt: skip
    variant[entry, place, substitute, place] = _other_token(running, text_nt[entry, place], draw)
    rows = passages.behind_bos(variant.reshape(-1, tokens))
    a_nts = activate(rows, latent_n[entry]).reshape(n, tokens, SUBSTITUTES)
    mean: Floats = a_nts.mean(axis=2)
    return mean


def _other_token(running: Ints, token: Ints, draw: Floats) -> Ints:
    """For each draw in [0, 1) a token by the counts' running sum, any but `token`."""
    upto = running[np.minimum(token, len(running) - 1)]
    own_count = np.diff(running, prepend=0)[np.minimum(token, len(running) - 1)]
    own_count = np.where(token < len(running), own_count, 0)
    at = np.floor(draw * (running[-1] - own_count)).astype(np.int64)
    # steps over the token's own stretch
    at += np.where(at >= upto - own_count, own_count, 0)
    substitute: Ints = np.searchsorted(running, at, side="right")
    return substitute


def _ends_with_any(passages: Passages, patterns: list[Pattern]) -> Mask:
    """[W, T]: whether the row up to this column ends with one of the patterns; BOS is no token."""
    ends = np.zeros(passages.tokens.shape, dtype=bool)
    for pattern in patterns:
        last = passages.first + len(pattern) - 1
        hit = np.ones_like(ends[:, last:])
        for i, token in enumerate(pattern, passages.first):
            if token != ANY:
                hit &= passages.tokens[:, i : i + hit.shape[1]] == token
        ends[:, last:] |= hit
    return ends


def _written(pattern: Pattern) -> str:
    return " ".join("*" if token == ANY else str(token) for token in pattern)


def _summary(frame: "pd.DataFrame", tokens: int, seed: int) -> Summary:
    precision, recall = (
        frame[name].dropna().to_numpy(np.float64) for name in ("precision", "recall")
    )
    scored = dict(zip(NAMES, (precision, recall), strict=True))
    return Summary(
        {name: float(values.mean()) if len(values) else None for name, values in scored.items()},
        {
            "ngram_latents": len(frame),
            "ngram_latents_with_precision": len(precision),
            "ngram_latents_with_recall": len(recall),
            "ngram_contexts": int(frame["fit_contexts"].sum()),
            "ngram_contexts_too_long": int(frame["n_too_long"].sum()),
            "ngram_patterns": int(frame["n_patterns"].sum()),
            "ngram_patterns_trivial": int(frame["n_trivial"].sum()),
            "ngram_tokens_test": tokens,
        },
        {name: mean_interval(values, seed, name) for name, values in scored.items() if len(values)},
    )
