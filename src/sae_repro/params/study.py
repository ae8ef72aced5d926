"""The whole of params.yaml, and the rules that hold between its sections."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, create_model, model_validator

from sae_repro.errors import did_you_mean
from sae_repro.params.base import Section, Seed
from sae_repro.params.cell import Cell
from sae_repro.params.cell_rules import width_faults
from sae_repro.params.compare import Compare
from sae_repro.params.compute import Compute
from sae_repro.params.control import Control
from sae_repro.params.corpus import Corpus
from sae_repro.params.evaluate import Evaluate
from sae_repro.params.extract import Extract
from sae_repro.params.hooks import (
    EMBEDDINGS,
    GIVEN,
    UNTRAINED,
    each_layer,
    gpt2_hooks,
    gpt2_width,
    in_stream,
    model_hook,
    on_random_weights,
    parts_of,
    stands_for,
    weights_of,
)
from sae_repro.params.joint import hooks_in, read_by, unextracted
from sae_repro.params.judge import Judge
from sae_repro.params.recipes import Cells, Name, PartialCell, Recipes
from sae_repro.params.report import Report
from sae_repro.params.subject import Subject, SubjectChoice, Training
from sae_repro.params.track import Track
from sae_repro.params.train import Train

Root = Annotated[str, Field(pattern=r"^(\.|\.\.(/\.\.)*)$", max_length=60)]


class Study(Section):
    """One study: every number in its reports follows from these values and the pinned inputs."""

    root: Root = Field(
        description="the repository's root, seen from params.yaml: . or ../.. and the like"
    )
    seed: Seed = Field(description="the seed of everything random")
    compute: Compute
    corpus: Corpus
    subject: Subject
    extract: Extract
    train: Train
    evaluate: Evaluate
    judge: Judge
    control: Control
    compare: Compare
    report: Report
    track: Track
    recipes: Recipes = Field(description="choices that several cells share, by name; {} for none")
    cells: Cells

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        problems = list(_problems(self))
        if problems:
            # one line each; `params.load` prints them under the file's name
            raise ValueError("\n".join(problems))
        return self

    def hook_of(self, cell: Cell) -> str:
        """The hook that `cell` reads; of a crosscoder the name of its hooks side by side."""
        return read_by(cell) or self.extract.by_layer(self.n_layers).hooks[0]

    @property
    def n_layers(self) -> int | None:
        """Blocks of the subject, where params.yaml says it."""
        source, training = self.subject.source, self.subject.training
        if source.kind == "hub":
            return source.n_layers
        return None if training is None else training.n_layers

    def d_in_of(self, cell: Cell) -> int | None:
        """D of what `cell` reads, where params.yaml alone determines it."""
        widths = [self._width_of(hook) for hook in hooks_in(self.hook_of(cell))]
        known = [width for width in widths if width is not None]
        return sum(known) if len(known) == len(widths) else None

    def _width_of(self, hook: str) -> int | None:
        source, training = self.subject.source, self.subject.training
        try:
            if training is not None:
                return gpt2_width(hook, d_model=training.d_model, n_heads=training.n_heads)
            return source.d_model if source.kind == "hub" and in_stream(hook) else None
        except ValueError:  # a fault of its own
            return None


if TYPE_CHECKING:
    Loose = Section
else:  # what a stage may read outside of sections; `Study` describes each
    Loose = create_model(
        "Loose",
        __config__=Section.model_config,
        __doc__="Parts of params.yaml that stages read one by one, as they are written.",
        root=(Root, "."),
        seed=(Seed, 0),
        subject=(SubjectChoice | None, None),
        recipes=(Recipes, {}),
        cells=(dict[Name, PartialCell], {}),
    )


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
    given = study.corpus.source.kind == "activations"
    if given or source.kind == "none":
        yield from _faults_of_given(study)
    for key, hook in _hooks(study):
        if given:
            break  # of no model
        if on_random_weights(hook):
            prefix = weights_of(hook)
            where = f"extract.{prefix[:-1]}_hooks"
            yield f"{key} = {hook}: name it without {prefix}, in {where}"
            continue
        try:
            for one in each_layer(hook, 1):
                parts_of(one)
        except ValueError as error:
            yield f"{key} = {hook}: {error}"
    if study.n_layers is not None:
        yield from shape_problems(study, n_layers=study.n_layers)
    if training is not None:
        yield from _not_of_gpt2(study, training)
    buffer, size = study.extract.buffer, study.train.batch_size
    if buffer is not None and buffer % size:
        yield (
            f"extract.buffer = {buffer}: must be a multiple of train.batch_size = {size}, so that "
            f"a round ends with a batch: {max(1, round(buffer / size)) * size}"
        )
    yield from width_problems(study, {})
    yield from duplicates(study)
    for pattern in study.evaluate.only or ():
        if not any(fnmatchcase(name, pattern) for name in study.cells):
            yield f"evaluate.only.{pattern}: no cell has such a name"
    for number, pattern in enumerate(study.report.explorer or ()):
        if not any(fnmatchcase(name, pattern) for name in study.cells):
            yield f"report.explorer.{number} = {pattern}: no cell has such a name"
    for name, cell in study.cells.items():
        if cell.hook is not None and not any(
            stands_for(several, cell.hook) for several in study.extract.all_hooks
        ):
            yield _not_extracted(study, f"cells.{name}.hook", cell.hook)
        for hook in unextracted(cell, study.extract.all_hooks):
            yield _not_extracted(study, f"cells.{name}.hooks", hook)
        yield from _target_problems(study, name, cell)
        if cell.tokens is not None and cell.tokens < study.train.batch_size:
            yield (
                f"cells.{name}.tokens = {cell.tokens}: less than one batch "
                f"(train.batch_size = {study.train.batch_size})"
            )
            continue
        if study.train.batch_size % cell.micro_batches:
            yield (
                f"cells.{name}.micro_batches = {cell.micro_batches}: must divide "
                f"train.batch_size = {study.train.batch_size}"
            )
        if cell.latent_shards > 1 and study.train.device != "cpu":
            yield f"cells.{name}.latent_shards: written for train.device = cpu only"
        rows, size = study.extract.n_tokens, study.train.batch_size
        steps = cell.steps(size, study.train.epochs, rows)
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


def _faults_of_given(study: Study) -> Iterator[str]:
    """What a study of given activations must say, and what it can't have."""
    if study.corpus.source.kind != "activations" or study.subject.source.kind != "none":
        yield (
            "corpus.source.kind = activations and subject.source.kind = none go together: given "
            "activations have no model, and a text needs one"
        )
        return
    extract = study.extract
    if extract.all_hooks != (GIVEN,):
        yield f"extract.hooks: given activations have one hook; write hooks: [{GIVEN}]"
    if extract.buffer is not None:
        yield "extract.buffer: given activations are on disk as they are; leave it out"
    if study.judge.kind == "http":
        yield "judge.kind = http: given activations have no text to ask about; write judge: {}"
    if study.evaluate.concepts is not None:
        yield "evaluate.concepts: its labels are of tokens, and given activations have none"


def duplicates(study: Study) -> Iterator[str]:
    """A line for each cell that is another one again: the same choices, hook and seeds."""
    names: dict[str, str] = {}
    for name, cell in study.cells.items():
        choices = repr(sorted({**cell.identity(), "hook": study.hook_of(cell)}.items()))
        first = names.setdefault(choices, name)
        if first != name:
            yield (
                f"cells.{name}: the same cell as {first} under another name; delete one, or change "
                "what it was meant to differ in"
            )


def _hooks(study: Study) -> Iterator[tuple[str, str]]:
    """(key, hook) of every hook that is to be extracted, as the model itself calls it."""
    for key, hooks in (
        ("hooks", study.extract.hooks),
        ("untrained_hooks", study.extract.untrained_hooks),
        ("embeddings_hooks", study.extract.embeddings_hooks),
    ):
        for number, hook in enumerate(hooks):
            yield f"extract.{key}.{number}", hook


def _target_problems(study: Study, name: str, cell: Cell) -> Iterator[str]:
    """Faults of a transcoder's target beside its input, at most one line."""
    target, hook = cell.target_hook, study.hook_of(cell)
    key = f"cells.{name}.target_hook = {target}"
    if target is None:
        return
    if target not in study.extract.all_hooks:
        yield _not_extracted(study, f"cells.{name}.target_hook", target)
    elif target == hook:
        yield f"{key}: the hook that it reads (the first of extract.hooks); name another hook"
    elif weights_of(target) != weights_of(hook):
        yield f"{key}: of another model than {hook}; name two hooks of one model"


def _not_extracted(study: Study, key: str, hook: str) -> str:
    """The line for a hook that a cell names; with the nearest extracted one if it is misspelt."""
    untrained, embeddings = (
        ", ".join(hooks) or "none"
        for hooks in (study.extract.untrained_hooks, study.extract.embeddings_hooks)
    )
    return (
        f"{key} = {hook}: not extracted; extract.hooks has {', '.join(study.extract.hooks)}; "
        f"extract.untrained_hooks (for {UNTRAINED}<hook>) has {untrained}; "
        f"extract.embeddings_hooks (for {EMBEDDINGS}<hook>) has {embeddings}"
        f"{_nearest_extracted(study, hook)}"
    )


def _nearest_extracted(study: Study, hook: str) -> str:
    """`; did you mean X?`; empty for a name that models have, which is merely not extracted."""
    with suppress(ValueError):
        name = parts_of(hook)
        if name.point in gpt2_hooks(study.n_layers or (name.layer or 0) + 1):
            return ""
    several = study.extract
    n_layers = study.n_layers or 1 + max(map(int, re.findall(r"\d+", hook)), default=0)
    return did_you_mean(hook, [*several.all_hooks, *several.by_layer(n_layers).all_hooks])


def _not_of_gpt2(study: Study, training: Training) -> Iterator[str]:
    """A line for each hook that a subject trained here has not, with the nearest that it has."""
    shape = {"d_model": training.d_model, "n_heads": training.n_heads}
    for key, several in _hooks(study):
        for hook in each_layer(several, training.n_layers):
            try:
                width = gpt2_width(hook, **shape)
            except ValueError:
                continue  # a fault of its own
            if width is None:
                near = did_you_mean(model_hook(hook), gpt2_hooks(training.n_layers))
                yield f"{key} = {hook}: a subject trained here has no such hook{near}"
                break


def shape_problems(study: Study, *, n_layers: int) -> Iterator[str]:
    """Faults of hooks for a model of this depth, one line each."""
    for key, several in _hooks(study):
        for hook in each_layer(several, n_layers):
            try:
                layer = parts_of(hook).layer
            except ValueError:
                break  # a fault of its own
            if layer is not None and layer >= n_layers:
                yield f"{key} = {several}: the model has layers 0 … {n_layers - 1}"
                break


def width_problems(study: Study, widths: Mapping[str, int]) -> Iterator[str]:
    """Faults of cells for hooks as wide as `widths` or params.yaml says, one line each."""
    for name, cell in study.cells.items():
        read = [widths.get(model_hook(hook)) for hook in hooks_in(study.hook_of(cell))]
        d_in = sum(d for d in read if d) if all(read) else study.d_in_of(cell)
        if d_in is not None:
            for fault in width_faults(cell, d_in):
                yield f"cells.{name}.{fault}"
