"""The whole of params.yaml, and the rules that hold between its sections."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, create_model, model_validator

from sae_repro.params.base import Section, Seed
from sae_repro.params.cell import Cell
from sae_repro.params.cell_rules import width_faults
from sae_repro.params.compare import Compare
from sae_repro.params.compute import Compute
from sae_repro.params.control import Control
from sae_repro.params.corpus import Corpus
from sae_repro.params.evaluate import Evaluate
from sae_repro.params.extract import Extract
from sae_repro.params.hooks import EMBEDDINGS, UNTRAINED, layer_of, on_random_weights, weights_of
from sae_repro.params.judge import Judge
from sae_repro.params.recipes import Cells, Name, PartialCell, Recipes
from sae_repro.params.report import Report
from sae_repro.params.subject import Subject, SubjectChoice
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
        """The hook that `cell` reads."""
        return cell.hook or self.extract.hooks[0]


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
    for key, hook in _hooks(study):
        if on_random_weights(hook):
            prefix = weights_of(hook)
            where = f"extract.{prefix[:-1]}_hooks"
            yield f"{key} = {hook}: name it without {prefix}, in {where}"
            continue
        try:
            layer_of(hook)
        except ValueError as error:
            yield f"{key} = {hook}: {error}"
    if source.kind == "hub":
        yield from shape_problems(study, d_model=source.d_model, n_layers=source.n_layers)
    elif training is not None:
        yield from shape_problems(study, d_model=training.d_model, n_layers=training.n_layers)
    yield from duplicates(study)
    for pattern in study.evaluate.only or ():
        if not any(fnmatchcase(name, pattern) for name in study.cells):
            yield f"evaluate.only.{pattern}: no cell has such a name"
    for number, pattern in enumerate(study.report.explorer or ()):
        if not any(fnmatchcase(name, pattern) for name in study.cells):
            yield f"report.explorer.{number} = {pattern}: no cell has such a name"
    for name, cell in study.cells.items():
        if cell.hook is not None and cell.hook not in study.extract.all_hooks:
            yield f"cells.{name}.hook = {cell.hook}: not extracted; {_extracted(study)}"
        if cell.tokens is not None and cell.tokens < study.train.batch_size:
            yield (
                f"cells.{name}.tokens = {cell.tokens}: less than one batch "
                f"(train.batch_size = {study.train.batch_size})"
            )
            continue
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


def _extracted(study: Study) -> str:
    untrained, embeddings = (
        ", ".join(hooks) or "none"
        for hooks in (study.extract.untrained_hooks, study.extract.embeddings_hooks)
    )
    return (
        f"extract.hooks has {', '.join(study.extract.hooks)}; extract.untrained_hooks (for "
        f"{UNTRAINED}<hook>) has {untrained}; extract.embeddings_hooks (for {EMBEDDINGS}<hook>) "
        f"has {embeddings}"
    )


def shape_problems(study: Study, *, d_model: int, n_layers: int) -> Iterator[str]:
    """Faults of hooks and cells for a model of this width and depth, one line each."""
    for key, hook in _hooks(study):
        try:
            layer = layer_of(hook)
        except ValueError:
            continue  # a fault of its own
        if layer >= n_layers:
            yield f"{key} = {hook}: the model has layers 0 … {n_layers - 1}"
    for name, cell in study.cells.items():
        for fault in width_faults(cell, d_model):
            yield f"cells.{name}.{fault}"
