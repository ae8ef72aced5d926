"""Maker of cells that were trained elsewhere: imported, and checked against their pins."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sae_repro.autoencoders import SAE, save
from sae_repro.autoencoders.interchange import import_release, import_sae
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.numerics.determinism import prepare
from sae_repro.params import Cell
from sae_repro.params.axes import ARCHITECTURES
from sae_repro.pins import check_import
from sae_repro.readers.shards import ActivationStore
from sae_repro.train.folder import hook_metadata, write_records

if TYPE_CHECKING:
    from sae_repro.train.job import CellJob


def read(cell: Cell, study: Path) -> SAE:
    """The pinned SAE; `study` holds params.yaml. StudyError where it is not what the pin says."""
    assert cell.import_ is not None
    folder = check_import(cell, study)
    if folder is not None:
        return import_sae(folder)
    release, _, sae_id = cell.import_.partition(":")
    sae = import_release(release, sae_id)
    with TemporaryDirectory() as name:
        save(sae, Path(name))
        sha256 = sha256_file(Path(name) / "sae_weights.safetensors")
    if cell.sha256 != sha256:
        raise StudyError(
            f"import = {cell.import_}: the SHA-256 of its weights is {sha256}, params.yaml says "
            f"{cell.sha256}; write sha256: {sha256} if this is the SAE you mean"
        )
    return sae


def make(job: "CellJob", folder: Path, progress: Callable[[int], None]) -> None:
    """Write the folder of an imported cell; StudyError where it does not fit the activations."""
    prepare(device=job.settings.device, threads=job.settings.threads)
    cell, hook = job.cell, job.hook
    sae, d_in = read(cell, Path()), ActivationStore(job.activations).d_in(hook)
    if sae.d_in != d_in:
        raise StudyError(
            f"import = {cell.import_}: an SAE on {sae.d_in} dimensions, {hook} has {d_in}; give "
            "the hook it was trained on"
        )
    metadata = {**(sae.metadata or {}), **hook_metadata(hook)}
    save(replace(sae, metadata=metadata), folder)
    choices: dict[str, Any] = {
        "import": cell.import_,
        "sha256": cell.sha256,
        "activation": ARCHITECTURES[sae.architecture].activation,
        "k": sae.k,
    }
    write_records(folder, job, id=cell.sha256, d_in=sae.d_in, d_sae=sae.d_sae, choices=choices)
