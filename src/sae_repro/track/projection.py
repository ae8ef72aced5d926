"""Runs for MLflow as plain data, built from the artifacts alone: no clock, no host, no server."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_repro.costs import Training, trainings
from sae_repro.errors import StudyError
from sae_repro.files import canonical_json, digest, read_json, sha256_file
from sae_repro.metrics import names_in
from sae_repro.params import Cell, saes_by_name
from sae_repro.params.appearance import look
from sae_repro.params.architecture import architecture_of
from sae_repro.params.cell_labels import as_trained, fields_read, is_control, sparsity
from sae_repro.params.operations import step_operations, trained_parameters
from sae_repro.remarks import remarks_on

REPORT = "report"
COLOUR = "mlflow.runColor"
"""The tag with the colour that MLflow draws a run in."""
COST = "cost/"
CURVE = "train/"
FRONTIER_X = "plot/log10_l0"
TRAIN = ("batch_size", "epochs", "precision")
"""What of the training settings MLflow is told; where and how often it logs decides no result."""
Row = tuple[str, int, float]
"""(metric, step, value)."""


def projection(cells: Mapping[str, Cell], study: Path, *, weights: bool) -> list[dict[str, Any]]:
    """One entry per SAE (cell, or cell/seed-<n>), and one for the report if there is one.

    Each has name, kind, key, status, labels, params, metrics and artifacts.

    `labels` are tags by which runs are filtered and grouped, `params` what decided the SAE as far
    as runs may differ in it; all of it is in train.json, which is among `artifacts`.
    `metrics` are (name, step, value): training under `train/`, held-out ones by their own names,
    their 95 % intervals under `interval/`, denominators and exclusions under `count/`, the size of
    the training under `cost/`.
    `artifacts` map a path below the study's folder to its SHA-256.
    """
    runs = [_sae(name, sae, study, weights) for name, sae in saes_by_name(cells).items()]
    reports = {
        path.relative_to(study).as_posix(): sha256_file(path)
        for folder in ("figures", "tables")
        for path in sorted((study / "reports" / folder).glob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    if not reports:
        return runs
    return [*runs, {"name": REPORT, "kind": REPORT, "key": digest(reports), "status": "ok",
                    "labels": {}, "params": {}, "metrics": [], "artifacts": reports}]  # fmt: skip


def identity(run: Mapping[str, Any]) -> str:
    """Hash of a run's values, which MLflow can't replace: other values are another run."""
    return digest([run["status"], run["params"], run["metrics"]])


def _sae(name: str, cell: Cell, study: Path, weights: bool) -> dict[str, Any]:
    trained = study / "artifacts" / "train" / name
    evaluated = study / "artifacts" / "evaluate" / name
    summary = read_json(trained / "train.json")
    measured = read_json(evaluated / "metrics.json")
    cell = as_trained(cell, summary["choices"])
    files = [trained / "cfg.json", trained / "train.json", evaluated / "metrics.json",
              evaluated / "contexts.parquet"]  # fmt: skip
    if weights:
        files.append(trained / "sae_weights.safetensors")
    return {
        "name": name,
        "kind": "cell",
        "key": summary["key"],
        "status": measured["status"],
        "labels": labels(cell, summary, measured),
        "params": _params(cell, summary),
        "metrics": [
            *curve(_rows(trained / "metrics.jsonl")),
            *_held_out(measured),
            *_on_frontier(cell, measured["metrics"]),
            *_size(cell, summary),
        ],
        "artifacts": {
            path.relative_to(study).as_posix(): sha256_file(path)
            for path in files
            if path.is_file()
        },
    }


def curve(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """A training's rows of metrics.jsonl as metrics."""
    return [
        (CURVE + name, row["step"], float(row[name]))
        for row in rows
        for name in sorted(row)
        if name not in ("step", "tokens") and row[name] is not None
    ]


def _held_out(measured: Mapping[str, Any]) -> Iterator[Row]:
    for part, prefix in (("metrics", ""), ("counts", "count/")):
        for name, value in measured[part].items():
            if value is not None:
                yield prefix + name, 0, float(value)
    for name, interval in measured["intervals"].items():
        for bound, value in zip(("low", "high"), interval, strict=True):
            yield f"interval/{name}_{bound}", 0, float(value)


def _on_frontier(cell: Cell, metrics: Mapping[str, float | None]) -> Iterator[Row]:
    """The abscissa of MLflow's frontier, whose x axis has no log scale; no control has one."""
    x, _ = names_in("frontier")
    value = metrics.get(x)
    if value and not is_control(cell):
        yield FRONTIER_X, 0, math.log10(value)


def _size(cell: Cell, summary: Mapping[str, Any]) -> Iterator[Row]:
    """What the training takes by params.yaml; time is no part of a result: see `spent`."""
    if cell.kind == "trained":
        d_in, batch_size = summary["d_in"], summary["train"]["batch_size"]
        d_out = summary.get("d_out")
        yield f"{COST}parameters", 0, float(trained_parameters(cell, d_in, d_out))
        yield f"{COST}flops_per_step", 0, float(step_operations(cell, d_in, batch_size, d_out))


def with_spent(
    runs: Sequence[Mapping[str, Any]], cells: Mapping[str, Cell], study: Path
) -> list[dict[str, Any]]:
    """`runs` for a server: those whose training was measured here have `spent` and `device`, too.

    No part of the projection: another run of the same training takes another time.
    """
    measured = {
        training.name: training
        for training in trainings(saes_by_name(cells), study)
        if training.cost is not None
    }
    return [{**run, **_spent(measured.get(run["name"]))} for run in runs]


def _spent(training: Training | None) -> dict[str, Any]:
    if training is None or training.cost is None:
        return {}
    values = {
        "seconds": training.cost.seconds,
        "cpu_seconds": training.cost.cpu_seconds,
        "tokens_per_second": training.tokens_per_second,
    }
    rows = [(COST + name, 0, float(value)) for name, value in values.items() if value is not None]
    return {"spent": rows, "device": training.cost.device}


def labels(cell: Cell, summary: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, str]:
    """The tags of an SAE's run: what it is, in words that filters and columns use."""
    activation = summary["choices"].get("activation")
    noted = remarks_on(cell, measured)
    return {
        **choice_labels(cell, summary["hook"], activation=activation),
        "width": str(summary["d_sae"]),
        "status": measured["status"],
        **({"remarks": "; ".join(noted)} if noted else {}),
    }


def choice_labels(cell: Cell, hook: str, *, activation: str | None = None) -> dict[str, str]:
    """The tags that are known before training; `activation` is an imported SAE's."""
    name = architecture_of(cell, activation=activation)
    target = cell.l0_target
    return {
        "architecture": name,
        **({} if target is None else {"target_l0": f"{target:g}"}),
        "hook": hook,
        "control": "yes" if is_control(cell) else "no",
        COLOUR: look(name).colour,
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; `dvc repro` makes it") from None


def _params(cell: Cell, summary: Mapping[str, Any]) -> dict[str, str]:
    """What decided the SAE, one value a name: nothing that its other choices leave unread."""
    read = {Cell.model_fields[name].alias or name for name in fields_read(cell)}
    chosen = {
        "architecture": architecture_of(cell, activation=summary["choices"].get("activation")),
        "sparsity": sparsity(cell),
        # an imported SAE's choices are its file's
        **{k: v for k, v in summary["choices"].items() if k in read or cell.kind == "imported"},
        "train": {name: summary["train"].get(name) for name in TRAIN},
        "hook": summary["hook"],
        "d_in": summary["d_in"],
        "d_sae": summary["d_sae"],
        "steps": summary["steps"],
        "study_seed": summary["seed"],
    }
    return dict(flat(chosen))


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names, values as JSON so that their type can be read back; strings as they are."""
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value if isinstance(value, str) else canonical_json(value)
