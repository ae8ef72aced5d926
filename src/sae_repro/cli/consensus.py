"""The command `consensus`: an SAE of the latents that all seeds of a cell found."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.contents import check
from sae_repro.errors import StudyError, did_you_mean
from sae_repro.files import read_json
from sae_repro.params import Cell, load

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from sae_repro.autoencoders import SAE


def consensus(
    cell: Annotated[str, typer.Argument(help="Name of a cell with several seeds, evaluated.")],
    to: Annotated[Path, typer.Option(help="Folder to write: a new or an empty one.")],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Decoder cosine that every two seeds must exceed.")
    ] = 0.7,
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
) -> None:
    """Write an SAE of the latents that every seed of a cell found.

    A latent is kept where, for every two seeds, the two latents are each other's nearest by decoder
    row and by encoder column, with a decoder cosine above --threshold. Weights are those of the
    first seed, as trained: averages would not fit its biases and thresholds. A TopK SAE gets the k
    that its kept latents had together, on average over held-out tokens.

    Prints the cell to paste into params.yaml, so that the SAE is evaluated like any other. Run it
    in the study's folder.

    Examples:

    sae-repro consensus topk-x8-k16 --to saes/topk-consensus

    sae-repro consensus topk-x8-k16 --threshold 0.9 --to saes/topk-strict
    """
    for line in _write(cell, to, threshold, study):
        echo(line)


def _write(name: str, to: Path, threshold: float, study: Path) -> Iterator[str]:
    cell = _cell(name, study)
    check(study / "artifacts" / "evaluate" / name)  # an SAE is checked where it is loaded
    from sae_repro.autoencoders import save
    from sae_repro.autoencoders.interchange import new_folder
    from sae_repro.autoencoders.partners import Directions, found_by_all
    from sae_repro.pins import model_digest

    saes = _saes(name, cell, study)
    alive = [(frame["n_fired"] > 0).to_numpy().nonzero()[0] for _, frame in saes.values()]
    members = [
        Directions.of(sae.weights, latent)
        for (sae, _), latent in zip(saes.values(), alive, strict=True)
    ]
    chains = found_by_all(members, threshold)
    if not len(chains):
        raise StudyError(
            f"{name}: no latent is in all of {', '.join(saes)} with a decoder cosine > "
            f"{threshold:g}; lower --threshold"
        )
    first, measured = next(iter(saes.values()))
    kept = alive[0][chains[:, 0]]
    density = float(measured["density"].to_numpy()[kept].sum())
    with new_folder(to) as folder:
        save(_part(first, kept, density, {"cell": name, "threshold": threshold}), folder)
    yield (
        f"{to}: {first.architecture}, {len(kept)} of the {len(alive[0])} alive latents of "
        f"{next(iter(saes))}: in all of {', '.join(saes)}, decoder cosine > {threshold:g}"
    )
    place = Path(os.path.relpath(to.resolve(), study.resolve())).as_posix()
    hook = read_json(study / "artifacts/train" / name / next(iter(saes)) / "train.json")["hook"]
    yield "add it to cells in params.yaml, then run dvc repro:"
    yield f"  {name}-consensus: {{import: {place}, sha256: {model_digest(to)}, hook: {hook}}}"


def _cell(name: str, study: Path) -> Cell:
    cells = load(study / "params.yaml").cells
    if name not in cells:
        raise StudyError(f"{name}: no cell of {study / 'params.yaml'}{did_you_mean(name, cells)}")
    if cells[name].seeds is None:
        raise StudyError(f"{name} has one SAE; give the cell seeds: [0, 1, 2], then dvc repro")
    if cells[name].hooks is not None:
        raise StudyError(
            f"{name}: a crosscoder, and a cell that imports an SAE reads one hook, so that nothing "
            "could evaluate its consensus; choose a cell of one hook"
        )
    return cells[name]


def _saes(name: str, cell: Cell, study: Path) -> "dict[str, tuple[SAE, pd.DataFrame]]":
    """The SAE of each seed that finished, and its latents on held-out tokens."""
    import pandas as pd

    from sae_repro.autoencoders import load as load_sae

    artifacts = study / "artifacts"
    saes = {
        place: (
            load_sae(artifacts / "train" / name / place),
            pd.read_parquet(artifacts / "evaluate" / name / place / "latents.parquet"),
        )
        for place in cell.members()
        if read_json(artifacts / "evaluate" / name / place / "metrics.json")["status"] == "ok"
    }
    if len(saes) < 2:
        raise StudyError(f"{name}: fewer than two of its seeds finished; nothing to compare")
    return saes


def _part(
    sae: "SAE", kept: "np.typing.NDArray[np.int64]", density: float, origin: dict[str, object]
) -> "SAE":
    """The SAE of the latents `kept`; `density` is how many of them fire per token in `sae`."""
    import torch

    from sae_repro.autoencoders import Weights
    from sae_repro.autoencoders.weights import LATENT_AXIS

    index = torch.from_numpy(kept)
    weights = Weights(
        **{
            tensor: value.index_select(LATENT_AXIS[tensor], index)
            if tensor in LATENT_AXIS
            else value
            for tensor, value in sae.weights.named().items()
        }
    )
    k = None if sae.k is None else min(len(kept), max(1, round(density)))
    metadata = {**(sae.metadata or {}), "consensus": {**origin, "latents": kept.tolist()}}
    return replace(sae, weights=weights, k=k, metadata=metadata)
