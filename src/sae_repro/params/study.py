"""The whole of params.yaml, and the rules that hold between its sections."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from sae_repro.params.base import Section
from sae_repro.params.cell import Cell
from sae_repro.params.sections import (
    Compare,
    Control,
    Corpus,
    Evaluate,
    Extract,
    Subject,
    Track,
    Train,
)

CellName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=80)]

HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
_HOOK = re.compile(rf"blocks\.(\d+)\.({'|'.join(HOOKS)})")


class Study(Section):
    """One study: every number in its reports follows from these values and the pinned inputs."""

    root: str = Field(".", description="the repository's root, relative to params.yaml")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="the seed of everything random")
    corpus: Corpus
    subject: Subject
    extract: Extract
    train: Train
    evaluate: Evaluate
    control: Control = Control()
    compare: Compare
    track: Track
    recipes: dict[str, Any] = Field(
        default_factory=dict, description="a place for YAML anchors; read by nothing else"
    )
    cells: Annotated[dict[CellName, Cell], Field(min_length=1)]

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        problems = list(_problems(self))
        if problems:
            # one line each; `params.load` prints them under the file's name
            raise ValueError("\n".join(problems))
        return self

    def hook_of(self, cell: Cell) -> str:
        """The hook that `cell` reads."""
        return cell.hook or self.extract.hooks[0]


def layer_of(hook: str) -> int:
    """The block of a hook's name; ValueError where the name is not one of `HOOKS` in a block."""
    match = _HOOK.fullmatch(hook)
    if match is None:
        allowed = ", ".join(f"blocks.<layer>.{name}" for name in HOOKS)
        raise ValueError(f"{hook!r} is no hook known here; allowed: {allowed}")
    return int(match[1])


def _problems(study: Study) -> Iterator[str]:
    source, training = study.subject.source, study.subject.training
    if study.corpus.source.kind == "stories" and source.kind != "train":
        yield (
            "corpus.source.kind = stories: its labels belong to its own words, which only a "
            "subject trained here reads; set subject.source.kind to train, or corpus.source.kind "
            "to files or hub"
        )
    if training is not None and study.extract.context > training.context:
        yield (
            f"extract.context = {study.extract.context}: the subject has "
            f"{training.context} positions (subject.training.context)"
        )
    for number, hook in enumerate(study.extract.hooks):
        try:
            layer_of(hook)
        except ValueError as error:
            yield f"extract.hooks.{number} = {hook}: {error}"
    if source.kind == "hub":
        yield from shape_problems(study, d_model=source.d_model, n_layers=source.n_layers)
    elif training is not None:
        yield from shape_problems(study, d_model=training.d_model, n_layers=training.n_layers)
    for name, cell in study.cells.items():
        if cell.hook is not None and cell.hook not in study.extract.hooks:
            yield (
                f"cells.{name}.hook = {cell.hook}: not extracted; extract.hooks has "
                f"{', '.join(study.extract.hooks)}"
            )
        steps = study.train.epochs * study.extract.n_tokens // study.train.batch_size
        if study.extract.pooling == "token" and steps < 1:
            yield (
                f"train.batch_size = {study.train.batch_size}: more than the "
                f"{study.extract.n_tokens} training tokens of extract.n_tokens"
            )
            return
        if cell.resamples and cell.resample_every > cell.resample_until * steps:
            yield (
                f"cells.{name}.resample_every = {cell.resample_every}: no resampling would ever "
                f"happen; at most {int(cell.resample_until * steps)} (resample_until × {steps} "
                "steps)"
            )


def shape_problems(study: Study, *, d_model: int, n_layers: int) -> Iterator[str]:
    """What does not fit a model of this width and depth, one line each."""
    for number, hook in enumerate(study.extract.hooks):
        match = _HOOK.fullmatch(hook)
        if match and int(match[1]) >= n_layers:
            yield (f"extract.hooks.{number} = {hook}: the model has layers 0 … {n_layers - 1}")
    for name, cell in study.cells.items():
        if cell.import_ is not None:
            continue  # its width is known once it is read
        width = cell.width(d_model)
        if width < 1:
            yield (
                f"cells.{name}.expansion = {cell.expansion}: no latent left; at least "
                f"{1 / d_model:g} (one latent at D = {d_model})"
            )
        elif cell.k is not None and cell.k > width:
            yield (
                f"cells.{name}.k = {cell.k}: allowed are 1 … {width} "
                f"(K = {cell.expansion:g} × {d_model})"
            )
        elif cell.target_l0 is not None and cell.target_l0 > width:
            yield (
                f"cells.{name}.target_l0 = {cell.target_l0:g}: allowed are at most {width} "
                f"(K = {cell.expansion:g} × {d_model})"
            )
        elif cell.prefixes == "fixed" and min(cell.prefix_shares) * width < 1:
            yield (
                f"cells.{name}.prefix_shares: the smallest group of K = {width} latents would be "
                "empty"
            )
