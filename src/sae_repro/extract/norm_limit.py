"""The rule that leaves out tokens with massive activations, and what it counts.

Language models give a few positions, most of all the first of a row, activations of many times the
others' norm: attention sinks, or massive activations (Xiao et al. 2024, arXiv 2309.17453; Sun et
al. 2024, arXiv 2402.17762). A squared error is then made of them, and an SAE learns little else.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.errors import StudyError
from sae_repro.extract.norms import POSITIONS, Floats, Moments, NormReport, Rows, squared_norms
from sae_repro.extract.state import State

MOST = 0.05
"""Fraction of tokens beyond which those left out are no exceptions."""


class NormLimit:
    """Which tokens are left out: norm above `limit` × the hook's median, at any of the hooks.

    Counted are all real tokens by split, those left out by split, by hook and by their position in
    the row.
    """

    def __init__(self, limit: float, medians: Mapping[str, float]) -> None:
        self.limit, self.medians = limit, dict(medians)
        self._squared = {hook: (limit * norm) ** 2 for hook, norm in medians.items()}
        self.tokens: dict[str, int] = {}
        self.positions = dict.fromkeys([*map(str, range(1, POSITIONS)), "later"], 0)
        self.hooks = dict.fromkeys(medians, 0)
        self.places: dict[str, list[npt.NDArray[np.int64]]] = {}
        """By split, the numbers of the tokens left out, among its real tokens in order."""

    def keeps(
        self, split: str, squared: Mapping[str, Floats], column: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Of the next real tokens of `split`, at `column` of their rows, which are kept [n]."""
        out = np.zeros(len(column), dtype=bool)
        for hook, bound in self._squared.items():
            # a broken activation is no massive one: it stays, and is refused
            beyond = (squared[hook] > bound) & np.isfinite(squared[hook])
            self.hooks[hook] += int(beyond.sum())
            out |= beyond
        before = self.tokens.get(split, 0)
        self.tokens[split] = before + len(out)
        places = np.flatnonzero(out)
        self.places.setdefault(split, []).append(before + places)
        for position in column[places].tolist():
            self.positions[str(position) if position < POSITIONS else "later"] += 1
        return ~out

    def state(self) -> State:
        """The rule, and what it counted so far."""
        return {
            "limit": self.limit,
            "medians": self.medians,
            "tokens": self.tokens,
            "positions": self.positions,
            "hooks": self.hooks,
            "places": {split: self.left_out(split) for split in self.places},
        }

    @classmethod
    def of(cls, state: State) -> "NormLimit":
        """The rule, with the counts of then."""
        rule = cls(state["limit"], state["medians"])
        rule.tokens, rule.positions = state["tokens"], state["positions"]
        rule.hooks = state["hooks"]
        rule.places = {split: [places] for split, places in state["places"].items()}
        return rule

    def left_out(self, split: str) -> npt.NDArray[np.int64]:
        """The numbers of the tokens of `split` that are left out, among its real tokens."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self.places.get(split, [])])

    def facts(self) -> dict[str, Any]:
        """What manifest.json says of it."""
        return {
            "norm_limit": self.limit,
            "medians": self.medians,
            "real_tokens": self.tokens,
            "tokens": {split: len(self.left_out(split)) for split in self.tokens},
            "hooks": self.hooks,
            "positions": self.positions,
        }

    def summary(self) -> str:
        """What was left out, on one line."""
        out, of = sum(len(self.left_out(s)) for s in self.tokens), sum(self.tokens.values())
        line = f"norm_limit {self.limit:g}: {out:,} of {of:,} tokens left out"
        if not out:
            return line
        where = ", ".join(f"{n:,} at {place}" for place, n in self.positions.items() if n)
        return f"{line} ({out / of:.2g}), by position in the row: {where}"


class NormWatch:
    """Reports the norms of training tokens at all hooks, and applies the limit, if there is one."""

    def __init__(self, hooks: Iterable[str], limit: NormLimit | None) -> None:
        self.reports = {hook: NormReport() for hook in hooks}
        self.limit = limit

    def state(self) -> State:
        """The counts of now."""
        reports = {hook: report.state() for hook, report in self.reports.items()}
        return {"reports": reports, "limit": self.limit.state() if self.limit else None}

    @classmethod
    def of(cls, state: State) -> "NormWatch":
        """The watch with the counts of then."""
        watch = cls((), NormLimit.of(state["limit"]) if state["limit"] else None)
        watch.reports = {hook: NormReport.of(part) for hook, part in state["reports"].items()}
        return watch

    def keeps(
        self, split: str, rows: Rows, first: Rows, column: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], dict[str, Moments]]:
        """Of the next real tokens of `split`, which are kept [n]; of training ones, the moments.

        `rows` [n, D] are their activations by hook, `first` those at the rows' first positions
        (of training rows), `column` [n] the tokens' positions in their rows.
        """
        moments: dict[str, Moments] = {}
        if split == "train":
            for hook, report in self.reports.items():
                of = moments[hook] = Moments.of(rows[hook])
                report.add(np.sqrt(of.squared), column, np.sqrt(squared_norms(first[hook])))
        if self.limit is None:
            return np.ones(len(column), dtype=bool), moments
        squared = {
            hook: moments[hook].squared if hook in moments else squared_norms(rows[hook])
            for hook in self.limit.medians
        }
        return self.limit.keeps(split, squared, column), moments


def limit_from(norms: Mapping[str, Floats], limit: float) -> NormLimit:
    """The rule from the `norms` [n] of the same tokens at each of the subject's hooks.

    StudyError where it would leave out more than `MOST` of these tokens.
    """
    medians = {hook: median(values) for hook, values in norms.items()}
    beyond = {hook: norms[hook] > limit * middle for hook, middle in medians.items()}
    left_out = np.any(list(beyond.values()), axis=0)
    if left_out.mean() > MOST:
        hook = max(beyond, key=lambda hook: int(beyond[hook].sum()))
        raise StudyError(
            f"extract.norm_limit = {limit:g}: would leave out {left_out.mean():.1%} of "
            f"{len(left_out):,} calibration tokens, {beyond[hook].mean():.1%} at {hook} (median "
            f"norm {medians[hook]:.4g}, largest {norms[hook].max():.4g}): these are no exceptions; "
            "raise it or set it to null, or start rows with the token that separated the model's "
            "training documents (extract.prepend_bos)"
        )
    return NormLimit(limit, medians)


def median(norms: Floats) -> float:
    """The lower median of `norms`: one of them."""
    middle = (len(norms) - 1) // 2
    return float(np.partition(norms, middle)[middle])
