"""Tables for people: the keys of params.yaml, and the cells of a study."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sae_repro.contents import check_if_sealed
from sae_repro.costs import cost_at, path_of
from sae_repro.files import read_json, read_object
from sae_repro.params import Cell, Study, Tune
from sae_repro.params.cell import LR_OF_UNIT_ROWS
from sae_repro.params.recipes import RECIPE, PartialCell
from sae_repro.params.scaling import SCALING
from sae_repro.remarks import remarks_on
from sae_repro.stage import STATE


def summary(study: Study) -> str:
    """One line: how many cells, on which hooks, how wide."""
    hooks = sorted({_hook(cell, study) for cell in study.cells.values()})
    sized = [(c, study.d_in_of(c)) for c in study.cells.values() if c.import_ is None]
    widths = sorted({cell.width(d_in) for cell, d_in in sized if d_in})
    saes = sum(len(cell.members()) for cell in study.cells.values())
    more = f" ({saes} SAEs)" if saes > len(study.cells) else ""
    range_of = " … ".join(f"{width}" for width in dict.fromkeys(widths[:1] + widths[-1:]))
    return f"ok: {len(study.cells)} cells{more} on {', '.join(hooks)}" + (
        f", K {range_of}" if widths else ""
    )


def _hook(cell: Cell, study: Study) -> str:
    hook = study.hook_of(cell)
    return hook if cell.target_hook is None else f"{hook} → {cell.target_hook}"


def cells_table(study: Study, folder: Path) -> str:
    """A row per cell."""
    from tabulate import tabulate

    rows = []
    for name, cell in study.cells.items():
        sparsity, d_in = _sparsity(cell), study.d_in_of(cell)
        trained, evaluated = (
            _count([folder / "artifacts" / stage / name / place / file for place in cell.members()])
            for stage, file in (("train", "train.json"), ("evaluate", "metrics.json"))
        )
        rows.append(
            [name, _hook(cell, study), _width(cell, d_in),
             _activation(cell), sparsity, cell.prefixes, cell.revival,
             ", ".join(map(str, cell.seeds or (cell.seed,))), *_length(cell, study, d_in),
             trained + _seconds(cell, folder, name), evaluated,
             _found(cell, folder / "artifacts" / "evaluate" / name / "metrics.json")]
        )  # fmt: skip
    headers = ["cell", "hook", "K", "activation", "sparsity", "prefixes", "revival", "seed",
               "lr", "tokens", "trained", "evaluated", "remarks"]  # fmt: skip
    return str(tabulate(rows, headers=headers))


def norms_table(folder: Path) -> str:
    """A row per hook: norms of its training activations; what norm_limit left out.

    Empty where there are none yet, or where an earlier version extracted them.
    """
    from tabulate import tabulate

    extract = folder / "artifacts" / "extract"
    path = extract / "manifest.json"
    if not path.is_file():
        return ""
    check_if_sealed(extract, path.name)
    manifest = read_object(path)
    norms = {hook: of["norms"] for hook, of in manifest["hooks"].items() if "norms" in of}
    if not norms:
        return ""
    left_out: dict[str, Any] = manifest.get("left_out", {"hooks": {}})
    rows = [
        [hook, *(f"{of[key]:.4g}" for key in ("median", "q999", "max")),
         left_out["hooks"].get(hook, "–")]
        for hook, of in norms.items()
    ]  # fmt: skip
    headers = ["hook", "median norm", "99.9 %", "largest", "tokens beyond norm_limit"]
    table = tabulate(rows, headers=headers, disable_numparse=True)
    if "tokens" not in left_out:
        return f"{table}\n\nnorm_limit: null, no token is left out"
    of_splits = ", ".join(
        f"{left_out['tokens'][split]:,} of {tokens:,} ({split})"
        for split, tokens in left_out["real_tokens"].items()
    )
    return f"{table}\n\nnorm_limit {left_out['norm_limit']:g} left out: {of_splits}"


def _length(cell: Cell, study: Study, d_in: int | None) -> tuple[str, str]:
    """(peak learning rate, training tokens at most), defaults resolved; – where not trained."""
    if cell.kind != "trained":
        return "–", "–"
    if cell.lr is None and d_in is None:
        lr = f"{LR_OF_UNIT_ROWS:g}/√D"
    else:
        lr = f"{cell.peak_lr(d_in or 1):.3g}"
    tokens = cell.tokens or study.train.epochs * study.extract.n_tokens
    return lr, f"{tokens:,}"


def _seconds(cell: Cell, folder: Path, name: str) -> str:
    """`, 3.2 s`: what training the SAEs of a cell took on the wall; nothing where not known."""
    trained = folder / "artifacts" / "train" / name
    costs = [
        cost_at(path_of(folder / STATE / "cells", read_object(path).get("key", "")))
        for place in cell.members()
        if (path := trained / place / "train.json").is_file()
    ]
    known = [cost.seconds for cost in costs if cost is not None]
    return f", {sum(known):.1f} s" if known and len(known) == len(costs) else ""


def _count(files: list[Path]) -> str:
    finished = sum(file.is_file() for file in files)
    if finished in (0, len(files)):
        return "yes" if finished else "–"
    return f"{finished} of {len(files)}"


def _found(cell: Cell, path: Path) -> str:
    """The remarks on an evaluated cell, or why it failed; of several seeds, each one's."""
    if not path.is_file():
        return ""
    check_if_sealed(path.parent, path.name)
    measured = read_json(path)
    failed = [measured["reason"]] if "reason" in measured else []
    return "; ".join([*failed, *remarks_on(cell, measured)])


def _activation(cell: Cell) -> str:
    if cell.import_ is not None:
        return "imported"
    if cell.baseline == "untrained":
        return f"untrained {cell.activation}"
    return cell.baseline or cell.activation


def _sparsity(cell: Cell) -> str:
    if cell.import_ is not None:
        return cell.import_
    if cell.baseline is not None and cell.k is None:
        return "–"
    if cell.k is not None:
        return f"k {cell.k}"
    target = "" if cell.target_l0 is None else f", L0 → {cell.target_l0:g}"
    return f"{cell.penalty} λ {cell.lambda_:g}{target}"


def _width(cell: Cell, d_in: int | None) -> str:
    if cell.import_ is not None:
        return "–"
    if d_in:
        return str(cell.width(d_in))
    return "2 D" if cell.is_basis else f"{cell.expansion:g} D"


def schema_lines() -> Iterator[str]:
    """Every key of params.yaml and tune/params.yaml: `key (type, default): meaning`."""
    for name, field in Study.model_fields.items():
        if name == "recipes":
            yield f"recipes.<name>: {field.description}; keys as in cells.<name>"
        elif name == "cells":
            yield "cells.<name>: one SAE each; the name has lower-case letters, digits, - and _"
            for key in (RECIPE, SCALING):
                yield from _field(f"cells.<name>.{key}", PartialCell.model_fields[key])
            yield from _fields(Cell, "cells.<name>")
        else:
            yield from _field(name, field)
    yield "tune: an Optuna study, in tune/params.yaml"
    yield from _fields(Tune, "tune")


def _fields(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield from _field(f"{prefix}.{field.alias or name}", field)


def _field(key: str, field: FieldInfo) -> Iterator[str]:
    inner = [part for part in _parts(field.annotation) if _is_model(part)]
    if inner:
        meaning = field.description or inner[0].__doc__ or ""
        yield f"{key}: {' '.join(meaning.split())}"
        for model in inner:
            kind = model.model_fields.get("kind")
            kinds = get_args(kind.annotation) if kind else ()
            tag = f" [kind: {kinds[0]}]" if len(kinds) == 1 else ""
            yield from _fields(model, key + tag)
        return
    missing = field.default is PydanticUndefined and field.default_factory is None
    default = (
        "required" if missing else f"default {_text(field.get_default(call_default_factory=True))}"
    )
    bounds = ", ".join(_bounds(field))
    kind_ = _type(field.annotation) + (f", {bounds}" if bounds else "")
    yield f"{key} ({kind_}; {default}): {field.description or ''}".rstrip(": ")
    for part in _parts(field.annotation):
        if get_origin(part) is dict and _is_model(get_args(part)[1]):
            yield from _fields(get_args(part)[1], f"{key}.<name>")


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _parts(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _type(annotation: Any) -> str:
    names = []
    for part in _parts(annotation):
        if get_origin(part) is Literal:
            names.append(" | ".join(str(value) for value in get_args(part)))
        elif part is type(None):
            names.append("null")
        elif get_origin(part) is tuple:
            names.append(f"list of {_type(get_args(part)[0])}")
        elif get_origin(part) is dict:
            names.append("mapping")
        else:
            names.append(getattr(part, "__name__", str(part)))
    return " | ".join(names)


def _bounds(field: FieldInfo) -> Iterator[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for rule in field.metadata:
        for name, sign in signs.items():
            if getattr(rule, name, None) is not None:
                yield f"{sign} {getattr(rule, name):g}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
