"""The params.yaml of a new study: a small grid that fits its model and the size of its text.

Every cell of an architecture stands at a target L0 (k, or target_l0, to which λ is steered), so
that architectures are compared where cells are and no weight is taken over from another model.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from sae_repro.cli.studies import WIDTH
from sae_repro.params import UNTRAINED

CELL_FLOP = 1e13  # of training, per cell: minutes on one core
TOKENS_SEEN = 300_000  # a text with fewer training tokens is passed over several times
MAX_TOKENS = {"train": TOKENS_SEEN, "calibration": 20_000, "validation": 30_000}
MAX_EPOCHS = 10
EXPANSIONS = (8, 4, 2)
TOKENS_PER_LATENT = 200  # training tokens, before a wider dictionary is chosen
SUBJECT = {"d_model": 64, "n_layers": 3, "n_heads": 4}
SUBJECT_POSITIONS = 64  # twice as many take more than twice as long
SUBJECT_PASSES, SUBJECT_ROWS, SUBJECT_STEPS = 4, 32, (150, 500)


@dataclass(frozen=True)
class Fit:
    """All that decides the sizes of a new study."""

    d_model: int
    n_layers: int
    positions: int
    """The most that a row may have."""
    tokens: Mapping[str, int]
    """Tokens of the text by split."""
    documents: Mapping[str, int]
    """Documents of the text by split."""
    longest: int
    """Tokens of a document that nine in ten do not exceed."""
    hooks: tuple[str, ...] = ()
    """Chosen hooks; none: the residual stream in the middle."""

    @property
    def all_hooks(self) -> tuple[str, ...]:
        """The hooks to extract."""
        return self.hooks or (f"blocks.{self.n_layers // 2}.hook_resid_post",)

    @property
    def context(self) -> int:
        """Positions of a row: a power of two in which most documents fit, 32 … 128."""
        return min(self.positions, max(32, min(128, _power_of_two(self.longest + 1))))

    @property
    def expansion(self) -> int:
        """The widest dictionary that the training tokens can fill, and that takes minutes.

        Never one of no more latents than the largest target: with D below 16 it takes a wider one.
        """
        sparse = [e for e in EXPANSIONS if e * self.d_model > self.targets[-1]]
        for expansion in sparse:
            enough = self.tokens["train"] >= TOKENS_PER_LATENT * expansion * self.d_model
            if enough and TOKENS_SEEN * self._flop(expansion) <= CELL_FLOP:
                return expansion
        return sparse[-1]

    def _flop(self, expansion: int) -> int:
        """Operations per training token: forward and backward through encoder and decoder."""
        return 12 * expansion * self.d_model**2

    @property
    def flop(self) -> float:
        """Operations that training a cell takes."""
        return float(self._flop(self.expansion) * self.epochs * self.extracted("train"))

    @property
    def targets(self) -> tuple[int, int, int]:
        """Three target L0: powers of two about √D, 2√D and 4√D (8, 16, 32 at D = 64)."""
        low = max(1, 2 ** round(math.log2(math.sqrt(self.d_model))))
        return low, 2 * low, 4 * low

    def extracted(self, split: str) -> int:
        """Tokens of a split to extract, two digits."""
        return _two_digits(min(self.tokens[split], MAX_TOKENS[split]))

    @property
    def batch_size(self) -> int:
        """Activations per training step: few, as the controller of target_l0 needs the steps.

        With 585 steps of 512, a ReLU cell on news ended at L0 10.2 for a target of 8.
        """
        return 256 if self.extracted("train") >= 20_000 else 128

    @property
    def epochs(self) -> int:
        """Passes over the training activations."""
        return max(1, min(MAX_EPOCHS, round(TOKENS_SEEN / self.extracted("train"))))

    @property
    def steps(self) -> int:
        """Training steps of each cell."""
        return self.epochs * (self.extracted("train") // self.batch_size)

    @property
    def subject_steps(self) -> int:
        """Steps of a language model trained here: a few passes over the text."""
        low, high = SUBJECT_STEPS
        rows = self.documents["train"] * max(1, math.ceil(self.longest / self.context))
        return max(low, min(high, _two_digits(SUBJECT_PASSES * rows // SUBJECT_ROWS)))


def cells(fit: Fit) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """(recipes, cells); a cell names its recipe and its target, controls come last."""
    seen = fit.epochs * fit.extracted("train")
    common = {"expansion": fit.expansion}
    auxk = {"revival": "auxk", "dead_tokens": max(1, _two_digits(seen // 10))}
    resample = {"revival": "resample", "resample_every": max(1, _two_digits(fit.steps // 5)),
                "resample_until": 0.5}  # fmt: skip
    recipes: dict[str, dict[str, Any]] = {
        "vanilla": {"activation": "relu", "penalty": "l1", **common, **resample},
        "topk": {"activation": "topk", **common, **auxk},
        "matryoshka": {"activation": "batchtopk", "prefixes": "random", **common, **auxk},
        "gated": {"activation": "gated", "penalty": "l1", **common},
    }
    grid: dict[str, dict[str, Any]] = {}
    width = f"x{fit.expansion}"
    for recipe, choices in recipes.items():
        for l0 in fit.targets:
            if "penalty" in choices:
                asked: dict[str, Any] = {"lambda": _first_lambda(fit.d_model, l0), "target_l0": l0}
                name = f"{recipe}-{width}-l0-{l0}"
            else:
                asked = {"k": l0}
                name = f"{recipe}-{width}-k{l0}"
            grid[name] = {"recipe": recipe, **asked}
    middle, hook = fit.targets[1], fit.all_hooks[0]
    grid |= {
        "neurons": {"baseline": "neurons"},
        "pca": {"baseline": "pca"},
        f"untrained-topk-{width}-k{middle}": {"baseline": "untrained", "activation": "topk",
                                              "expansion": fit.expansion, "k": middle},
        f"random-weights-topk-{width}-k{middle}": {"recipe": "topk", "k": middle,
                                                   "hook": UNTRAINED + hook},
    }  # fmt: skip
    return recipes, grid


def _first_lambda(d_model: int, l0: int) -> float:
    """Where the controller of target_l0 starts: of the size at which latents are cut off.

    With inputs of norm √D, L0 latents are about √(D / L0) each; the mean over D dimensions of
    their squared error balances λz at λ = z / D.
    """
    return float(f"{0.8 / math.sqrt(d_model * l0):.1g}")


def sections(
    fit: Fit, *, name: str, trained_here: bool, prepend_bos: bool | str = True
) -> dict[str, dict[str, Any]]:
    """The sections of params.yaml from subject.training to track, without cells."""
    steps = fit.steps
    validation = fit.extracted("validation")
    training = {**SUBJECT, "context": fit.context, "steps": fit.subject_steps,
                "batch_size": SUBJECT_ROWS}  # fmt: skip
    return {
        **({"training": training} if trained_here else {}),
        "extract": {
            "hooks": list(fit.all_hooks),
            "untrained_hooks": [fit.all_hooks[0]],
            "context": fit.context,
            **({} if prepend_bos is True else {"prepend_bos": prepend_bos}),
            "n_tokens": fit.extracted("train"),
            "n_calibration_tokens": fit.extracted("calibration"),
            "n_validation_tokens": validation,
        },
        "train": {
            "batch_size": fit.batch_size,
            "epochs": fit.epochs,
            "log_every": max(1, _two_digits(steps // 60)),
            "checkpoint_every": max(1, _two_digits(steps // 3)),
        },
        "evaluate": {
            "fidelity_tokens": max(1, min(20_000, validation // 3)),
            "structure_tokens": max(1000, min(20_000, validation // 2)),
        },
        "judge": {"kind": "concepts"},
        "control": {"worlds": []},
        "compare": {"matched_l0": list(fit.targets), "bootstrap": 1000},
        "report": {},
        "track": {"experiment": name},
    }


def _two_digits(count: int) -> int:
    """`count` rounded down to two significant digits."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return int(count // unit * unit)


def _power_of_two(at_least: int) -> int:
    return 1 << max(0, at_least - 1).bit_length()


COMMENTS = {
    "extract.untrained_hooks": "also from the same architecture, weights random",
    "extract.prepend_bos": "what the model reads its text best behind, as measured",
    "extract.n_tokens": "at most, as the next two",
    "judge.kind": "the text's own; http asks a language model: see docs/judge.md",
    "control.worlds": "synthetic data with known atoms, of no concern to this text",
    "compare.matched_l0": "where the cells are",
}


def lines(values: Mapping[str, Any], within: str = "", indent: str = "") -> Iterator[str]:
    """YAML of sections: mappings and lists as blocks, with the comments of `COMMENTS`.

    Laid out as DVC writes it, so that a value set by `dvc exp run -S` is one changed line.
    """
    for key, value in values.items():
        remark = COMMENTS.get(within + key)
        comment = f"  # {remark}" if remark else ""
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_scalar(key)}:"
            yield from lines(value, f"{within}{key}.", indent + "  ")
        elif isinstance(value, list) and value:
            yield f"{indent}{_scalar(key)}:{comment}"
            yield from (f"{indent}- {flow(item)}" for item in value)
        elif len(line := f"{indent}{_scalar(key)}: {flow(value)}") > WIDTH:
            yield f"{indent}{_scalar(key)}: {comment}"
            yield f"{indent}  {flow(value)}"
        else:
            yield line + comment


def flow(value: Any, *, within: bool = False) -> str:
    """A value on one line, as YAML 1.2; `within` braces or brackets more words are quoted."""
    if isinstance(value, Mapping):
        items = (f"{key}: {flow(item, within=True)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item, within=True) for item in value) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}" if value >= 10_000 else str(value)
    return _scalar(value, within=within)


def _scalar(value: Any, *, within: bool = False) -> str:
    """A float, or a text with the quotes that it needs."""
    if not isinstance(value, str):
        return repr(value)
    listed = CommentedSeq([value])
    if within:
        listed.fa.set_flow_style()
    yaml, text = YAML(), StringIO()
    yaml.width = 10**6
    yaml.dump(listed, text)
    return text.getvalue().strip()[1:-1] if within else text.getvalue()[2:].rstrip("\n")


def rows(named: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A recipe or a cell per line; a line per choice where that is wider than DVC writes."""
    for name, choices in named.items():
        line = f"  {name}: {flow(choices)}"
        if len(line) <= WIDTH:
            yield line
        else:
            yield from lines({name: choices}, indent="  ")
