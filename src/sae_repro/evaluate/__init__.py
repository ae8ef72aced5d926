"""Stage `evaluate`: one SAE on held-out activations, in artifacts/evaluate/<cell>/.

As in `train`, the first of these stages evaluates all cells that are missing, side by side. A cell
with several seeds has a folder for each, and a metrics.json over all of them (see `over_seeds`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.cellstore import CellStore, bypassed, code_digest
from sae_repro.evaluate.over_seeds import over_seeds
from sae_repro.evaluate.trained import trained_saes
from sae_repro.files import digest, read_json, replacing_folder, sha256_file, write_json
from sae_repro.params import Evaluate
from sae_repro.pins import check_concepts
from sae_repro.sidebyside import side_by_side
from sae_repro.stage import STATE, StageContext

if TYPE_CHECKING:
    from sae_repro.evaluate.cell import EvaluateJob

CODE = ("autoencoders", "evaluate", "evaluate/structure", "store.py", "hashing.py", "random.py",
        "intervals.py", "compute.py", "corpus", "subject/loader.py")  # fmt: skip

TRAINER = ("autoencoders", "train", "evaluate/structure/references.py", "store.py", "random.py",
           "params/cell.py", "compute.py")  # fmt: skip
"""What references follow from; whoever reads them hashes it through the trained cell's key."""


def run(context: StageContext) -> None:
    """Put the stage's own cell into artifacts/evaluate, evaluating whatever is missing."""
    store = CellStore(STATE / "cells")
    own, out = context.key, context.artifacts("evaluate")
    settings = context.section(Evaluate, "evaluate")
    if settings.concepts is not None:
        check_concepts(settings.concepts, Path())
    shared = shared_inputs(context, settings)
    trained = trained_saes(context, store)
    keys = {place: evaluation_key(shared, folder) for place, folder in trained.items()}

    def job(name: str, place: str) -> "EvaluateJob":
        key = keys[name, place]
        return job_of(context, settings, store, shared, trained[name, place], key)

    mine = {place: key for (name, place), key in keys.items() if name == own}
    if not bypassed() and any(store.find(key) is None for key in mine.values()):
        missing = {
            key: job(name, place)
            for (name, place), key in keys.items()
            if store.find(key) is None and (name == own or not _present(out / name / place, key))
        }
        side_by_side([(piece, 1) for piece in missing.values()], what="evaluate", unit="cell")
    with replacing_folder(out / own) as folder:
        for place, key in mine.items():
            if bypassed():
                _evaluate(job(own, place), folder / place)
            else:
                store.take(key, folder / place)
            _name(folder / place, own, key)
        if len(mine) > 1:
            measured = {place: read_json(folder / place / "metrics.json") for place in mine}
            write_json(folder / "metrics.json", {"cell": own, **over_seeds(measured)})


def _evaluate(job: "EvaluateJob", folder: Path) -> None:
    from sae_repro.evaluate.cell import evaluate_into

    folder.mkdir(exist_ok=True)
    evaluate_into(job, folder)


def shared_inputs(context: StageContext, settings: Evaluate) -> str:
    """Hash of what every cell's evaluation follows from, its SAE apart."""
    extract = context.artifacts("extract")
    subject = context.artifacts("subject")
    return digest(
        {
            "evaluate": settings.model_dump(mode="json"),
            "seed": context.value("seed"),
            "extract": sha256_file(extract / "manifest.json"),
            "windows": sha256_file(extract / "windows" / "tokens.npy"),
            "subject": [sha256_file(path) for path in sorted(subject.glob("*.safetensors"))],
            "config": sha256_file(subject / "config.json"),
            "corpus": sha256_file(context.artifacts("corpus") / "tokens.npy"),
            "code": code_digest(context.root, *CODE),
        }
    )


def job_of(
    context: StageContext, settings: Evaluate, store: CellStore, shared: str, sae: Path, key: str
) -> "EvaluateJob":
    """The job that evaluates the trained SAE in the folder `sae` into `store` under `key`."""
    from sae_repro.evaluate.cell import EvaluateJob

    return EvaluateJob(
        sae=sae,
        settings=settings,
        seed=context.value("seed"),
        key=key,
        baseline_key=digest([shared, "baseline"]),
        trainer=code_digest(context.root, *TRAINER),
        store=store.folder,
        corpus=context.artifacts("corpus"),
        subject=context.artifacts("subject"),
        activations=context.artifacts("extract"),
    )


def evaluation_key(shared: str, trained: Path) -> str:
    """Where the store keeps the evaluation of the trained SAE in the folder `trained`."""
    return digest([shared, _digest_of(trained)])


def _digest_of(folder: Path) -> str:
    """Hash of a trained cell, whatever its name."""
    summary = {k: v for k, v in read_json(folder / "train.json").items() if k != "cell"}
    weights = folder / "sae_weights.safetensors"
    return digest([summary, sha256_file(weights) if weights.is_file() else None])


def _present(folder: Path, key: str) -> bool:
    path = folder / "metrics.json"
    return path.is_file() and read_json(path).get("key") == key


def _name(folder: Path, name: str, key: str) -> None:
    """The store knows contents, not names: say in the out which cell this is."""
    measured = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", {"cell": name, "key": key, **measured})
