"""Runs for MLflow as plain data, built from the artifacts alone: no clock, no host, no server."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.files import canonical_json, digest, read_json, sha256_file

REPORT = "report"


def projection(saes: Iterable[str], study: Path, *, weights: bool) -> list[dict[str, Any]]:
    """One entry per SAE of `saes` (cell, or cell/seed-<n>), and one for the report if there is one.

    Each has name, kind, key, status, params, metrics and artifacts.

    `metrics` are (name, step, value): training under `train/`, held-out ones by their own names,
    their 95 % intervals under `interval/`, denominators and exclusions under `count/`.
    `artifacts` map a path below the study's folder to its SHA-256.
    """
    runs = [_cell(name, study, weights) for name in saes]
    reports = {
        path.relative_to(study).as_posix(): sha256_file(path)
        for folder in ("figures", "tables")
        for path in sorted((study / "reports" / folder).glob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    if not reports:
        return runs
    return [*runs, {"name": REPORT, "kind": REPORT, "key": digest(reports), "status": "ok",
                    "params": {}, "metrics": [], "artifacts": reports}]  # fmt: skip


def identity(run: Mapping[str, Any]) -> str:
    """Hash of a run's values, which MLflow can't replace: other values are another run."""
    return digest([run["status"], run["params"], run["metrics"]])


def _cell(name: str, study: Path, weights: bool) -> dict[str, Any]:
    trained = study / "artifacts" / "train" / name
    evaluated = study / "artifacts" / "evaluate" / name
    summary = read_json(trained / "train.json")
    measured = read_json(evaluated / "metrics.json")
    metrics = [
        (f"train/{key}", row["step"], float(value))
        for row in _curve(trained / "metrics.jsonl")
        for key, value in row.items()
        if key not in ("step", "tokens") and value is not None
    ]
    metrics += [
        (prefix + name, 0, float(value))
        for part, prefix in (("metrics", ""), ("counts", "count/"))
        for name, value in measured[part].items()
        if value is not None
    ]
    metrics += [
        (f"interval/{name}_{bound}", 0, float(value))
        for name, interval in measured["intervals"].items()
        for bound, value in zip(("low", "high"), interval, strict=True)
    ]
    files = [trained / "cfg.json", trained / "train.json", evaluated / "metrics.json",
              evaluated / "contexts.parquet"]  # fmt: skip
    if weights:
        files.append(trained / "sae_weights.safetensors")
    return {
        "name": name,
        "kind": "cell",
        "key": summary["key"],
        "status": summary["status"],
        "params": _params(summary),
        "metrics": metrics,
        "artifacts": {
            path.relative_to(study).as_posix(): sha256_file(path)
            for path in files
            if path.is_file()
        },
    }


def _curve(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; `dvc repro` makes it") from None


def _params(summary: Mapping[str, Any]) -> dict[str, str]:
    """The cell's choices, how it was trained, and the sizes that follow, one value a name."""
    chosen = {
        **summary["choices"],
        "train": summary["train"],
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
