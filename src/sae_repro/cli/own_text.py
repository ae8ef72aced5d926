"""A new study on text or a model of one's own: both pinned, a grid of the sizes that fit them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.checkpoint.configuration import Shape, read_config, shape_of
from sae_repro.cli.bringing import bring, no_file
from sae_repro.cli.first_token import chosen_start
from sae_repro.cli.grid import (
    CELL_FLOP,
    SUBJECT,
    SUBJECT_POSITIONS,
    Fit,
    cells,
    lines,
    rows,
    sections,
)
from sae_repro.cli.measuring import (
    CHARACTERS_PER_TOKEN,
    TextSize,
    Tokenise,
    check_enough,
    counter,
    measure,
)
from sae_repro.cli.names import dataset_name, model_name, pinned_commit
from sae_repro.cli.schema import modeline
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.hub import UnreachableError, config_of
from sae_repro.params import (
    FilesSource,
    GgufSubject,
    HereSubject,
    HubSource,
    HubSubject,
    LocalSubject,
    SubjectChoice,
    check_section,
)
from sae_repro.pins import check_model, model_digest
from sae_repro.readers.examination import examine

if TYPE_CHECKING:
    from sae_repro.cli.new import StudyRequest
    from sae_repro.corpus.sources import TextSource

SEED = 0
POSITIONS = 128  # of a model that does not say how many it has
HUB_DOCUMENTS = 20_000
VOCABULARIES = (512, 2048)
SAMPLE = 128  # documents on which first tokens of rows are compared
CHARACTERS_PER_ENTRY = 400  # of text, before a larger vocabulary is chosen


@dataclass(frozen=True)
class Model:
    """The subject of a new study, and its shape."""

    source: dict[str, Any]
    d_model: int
    n_layers: int
    positions: int
    folder: Path | None = None
    """The Hugging Face folder of a model that is here."""


def own_study(name: str, request: "StudyRequest", folder: Path) -> tuple[str, list[str]]:
    """(params.yaml of the study, lines to show); inputs are copied into `folder` once all fits."""
    texts, source = _texts(request)
    model = _model(request)
    first = [] if texts is None else [document.text for document in islice(texts, SAMPLE)]
    size, notes = _measured(texts, source, model)
    check_enough(size, model.d_model)
    if texts is not None and request.dataset:
        source["n_documents"] = sum(size.documents.values()) + texts.skipped["one_token"]
    fit = Fit(
        d_model=model.d_model,
        n_layers=model.n_layers,
        positions=model.positions,
        tokens=size.tokens,
        documents=size.documents,
        longest=size.longest,
        hooks=request.hooks,
    )
    prepend_bos: bool | str = True
    if model.folder is not None:
        prepend_bos, more = chosen_start(model.folder, first, fit.all_hooks, fit.context)
        notes += more
    if source["kind"] == "files":
        files = {}
        for path in request.text:
            place, more = bring(path, folder)
            files[place] = source["files"][str(path)]
            notes += more
        source = {**source, "files": files}
    subject = model.source
    if subject["kind"] in ("local", "gguf"):
        place, more = bring(Path(subject["path"]), folder, model=True)
        subject = {**subject, "path": place}
        notes += more
    notes += _notes(size, fit, trained_here=subject["kind"] == "train")
    return study_yaml(name, fit, source, subject, size, prepend_bos), notes


def _texts(request: "StudyRequest") -> tuple["TextSource | None", dict[str, Any]]:
    """(the documents, None where the hub can't be read now; corpus.source)."""
    from sae_repro.corpus.sources import open_files, open_hub

    chosen: dict[str, Any] = {}
    if request.columns:
        chosen["columns"] = list(request.columns)
    if request.label:
        chosen["label"] = request.label
    if request.dataset:
        name = dataset_name(request.dataset)
        source = {
            "kind": "hub",
            "name": name,
            "split": request.split,
            "revision": pinned_commit("dataset", name, request.dataset_revision),
            **({} if "[" in request.split else {"streaming": True}),
            **chosen,
            "n_documents": request.documents or HUB_DOCUMENTS,
        }
        try:
            texts = open_hub(check_section(HubSource, source, within="corpus.source"))
        except UnreachableError:
            return None, source
        return texts if request.documents else _at_most(texts, HUB_DOCUMENTS), source
    for path in request.text:
        if not path.is_file():
            raise StudyError(f"--text {path}: {no_file(path)}")
    source = {
        "kind": "files",
        "files": {str(path): _sha256(path) for path in request.text},
        **chosen,
        **({"n_documents": request.documents} if request.documents else {}),
    }
    return open_files(check_section(FilesSource, source, within="corpus.source"), Path()), source


def _at_most(texts: "TextSource", rows: int) -> "TextSource":
    """The first `rows` of a data set, or all that there are."""
    read = texts.read
    return replace(texts, read=lambda: islice(read(), rows), limit=None)


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise StudyError(f"--text {path}: can't be read ({error.strerror})") from None


def _model(request: "StudyRequest") -> Model:
    if request.model is None:
        return Model({"kind": "train"}, SUBJECT["d_model"], SUBJECT["n_layers"], SUBJECT_POSITIONS)
    path = Path(request.model)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        here: HereSubject = (
            LocalSubject(kind="local", path=str(path), sha256=model_digest(path))
            if path.is_dir()
            else GgufSubject(kind="gguf", path=str(path), sha256=sha256_file(path))
        )
        source, what = here.model_dump(), f"--model {path}"
        folder = check_model(here, Path())
        shape = shape_of(read_config(folder, what), what)
        examine(folder, what)  # before the text is measured, which takes longer
        return replace(_shaped(source, shape, request), folder=folder)
    if path.exists() or request.model.count("/") > 1:
        raise StudyError(
            f"--model {request.model}: no such folder, nor a .gguf file; a model of the hub is "
            "owner/name"
        )
    name = model_name(request.model)
    commit = pinned_commit("model", name, request.revision)
    source = {"kind": "hub", "name": name, "revision": commit}
    if request.d_model and request.n_layers:
        shape = Shape(request.d_model, request.n_layers, None)
    else:
        config, what = config_of(name, commit), f"--model {request.model}"
        shape = shape_of(read_config(config.parent, what), what)
    model = _shaped(source, shape, request)
    return Model(
        {**source, "d_model": model.d_model, "n_layers": model.n_layers},
        model.d_model, model.n_layers, model.positions,
    )  # fmt: skip


def _shaped(source: dict[str, Any], shape: Shape, request: "StudyRequest") -> Model:
    for option, stated, found in (
        ("--d-model", request.d_model, shape.d_model),
        ("--n-layers", request.n_layers, shape.n_layers),
    ):
        if stated not in (None, found):
            raise StudyError(f"{option} {stated}: the model {request.model} has {found}")
    if shape.positions == 1:
        raise StudyError(f"--model {request.model}: config.json gives it 1 position; it takes 2")
    return Model(source, shape.d_model, shape.n_layers, shape.positions or POSITIONS)


def _measured(
    texts: "TextSource | None", source: dict[str, Any], model: Model
) -> tuple[TextSize, list[str]]:
    notes: list[str] = []
    tokenise = _tokenising(model, notes)
    if texts is not None:
        return measure(texts, SEED, tokenise), notes
    documents = source["n_documents"]
    shares = {"validation": 0.1, "calibration": 0.02}
    parts = {"train": 0.88, **shares}
    size = TextSize(
        name=source["name"],
        documents={split: int(documents * part) for split, part in parts.items()},
        tokens={split: int(documents * part * POSITIONS) for split, part in parts.items()},
        longest=POSITIONS,
        characters=documents * POSITIONS * CHARACTERS_PER_TOKEN,
        shares=shares,
    )
    notes.append(
        f"{source['name']} can't be read now: sizes are those of {documents:,} documents of "
        f"{POSITIONS} tokens; check extract.n_tokens and train.epochs once you have it"
    )
    return size, notes


def _tokenising(model: Model, notes: list[str]) -> Callable[[list[str]], Tokenise] | None:
    """What makes a counter of tokens from a sample of the text; None where none can be had."""
    from sae_repro.corpus.tokenizers import byte_pairs
    from sae_repro.readers.tokenizer import pretrained

    if model.source["kind"] == "train":
        return lambda sample: counter(byte_pairs(sample, _vocabulary(sum(map(len, sample)))))
    source = check_section(SubjectChoice, {"source": model.source}, within="subject").source
    assert isinstance(source, HereSubject | HubSubject)
    try:
        tokenizer = pretrained(source, Path())
    except StudyError:
        if not isinstance(source, HubSubject):
            raise
        notes.append("the model's tokenizer can't be read now: four characters count as a token")
        return None
    return lambda sample: counter(tokenizer)


def _vocabulary(characters: int) -> int:
    """Byte-pair entries of a tokenizer made here: a power of two that the text can fill."""
    low, high = VOCABULARIES
    entries = max(1, characters // CHARACTERS_PER_ENTRY)
    return int(min(high, max(low, 1 << (entries.bit_length() - 1))))


def _notes(size: TextSize, fit: Fit, *, trained_here: bool) -> Iterable[str]:
    yield f"text: {size}{size.found.details() if size.found else ''}"
    if trained_here:
        yield (
            f"subject: a GPT-2 of {fit.n_layers} layers, D = {fit.d_model}, trained on this text "
            f"for {fit.subject_steps:,} steps"
        )
    if not fit.hooks:
        yield f"hook: {fit.all_hooks[0]}, the middle of {fit.n_layers} layers (--hook for another)"
    yield (
        f"grid: K = {fit.expansion * fit.d_model:,}, L0 {', '.join(map(str, fit.targets))}, "
        f"{fit.steps:,} steps of {fit.batch_size} activations"
    )
    if fit.flop > CELL_FLOP:
        yield (
            f"warning: at D = {fit.d_model} a cell takes {fit.flop:.0e} operations, hours of a CPU "
            "core; set device: cuda in extract, train and evaluate for a GPU"
        )


def study_yaml(
    name: str,
    fit: Fit,
    source: dict[str, Any],
    subject: dict[str, Any],
    size: TextSize,
    prepend_bos: bool | str = True,
) -> str:
    """The text of params.yaml."""
    trained_here = subject["kind"] == "train"
    parts = sections(fit, name=name, trained_here=trained_here, prepend_bos=prepend_bos)
    corpus: dict[str, Any] = {"source": source, **size.shares}
    if trained_here:
        corpus["vocabulary"] = _vocabulary(size.characters)
    document: dict[str, Any] = {
        "corpus": corpus,
        "subject": {"source": subject, **({"training": parts.pop("training")} if trained_here
                                          else {})},
        **parts,
    }  # fmt: skip
    recipes, grid = cells(fit)
    text = [
        f"# {modeline('../../params.schema.json')}",
        f"# Study {name}. Every key: sae-repro check --schema",
        "root: ../..",
        f"seed: {SEED}",
        "",
        "compute: {bits: portable}  # the same kernels on every x86-64 processor with AVX2",
    ]
    for key, section in document.items():
        text += ["", *lines({key: section})]
    text += [
        "",
        "recipes:",
        "  # expected_norm: inputs of one scale, so that λ means the same for every model",
        *rows(recipes),
        "",
        "# a cell is one SAE; its λ is where the controller of target_l0 starts",
        "cells:",
        *rows(grid),
    ]
    return "\n".join(text) + "\n"
