"""SAEs to and from other libraries' folders.

saelens              cfg.json + sae_weights.safetensors
dictionary_learning  config.json + ae.pt (saprmarks/dictionary_learning)
sparsify             cfg.json + sae.safetensors (EleutherAI/sparsify; TopK only)
gemma_scope          params.npz (google/gemma-scope-*; read only)

    from sae_repro.autoencoders.interchange import export, import_sae
    sae = import_sae(Path("their-sae"))  # whichever of the four it is
    export(sae, Path("for-them"), "dictionary_learning")

What comes in has unit decoder rows, so that z is in the units of x. What can't be read exactly is
refused: keys of a configuration that are unknown here and set, tensors that are not finite or fit
nothing, norms that can't be moved.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sae_repro.autoencoders.crosscoding import crosscoder_of
from sae_repro.autoencoders.interchange.formats import (
    read_dictionary_learning,
    read_gemma_scope,
    read_saelens,
    read_sparsify,
    write_dictionary_learning,
    write_sparsify,
)
from sae_repro.autoencoders.interchange.layouts import SPARSIFY
from sae_repro.autoencoders.saved import SAE, save
from sae_repro.errors import StudyError
from sae_repro.files import replacing_folder, write_text
from sae_repro.hub import fetching, one_line, reachable

FORMATS = ("saelens", "dictionary_learning", "sparsify")
"""The formats that are written."""

FILES = {
    "saelens": ("cfg.json", "sae_weights.safetensors"),
    "dictionary_learning": ("config.json", "ae.pt"),
    "sparsify": ("cfg.json", "sae.safetensors"),
    "gemma_scope": ("params.npz",),
}
"""The files by which a folder's format is recognised."""


def export(sae: SAE, folder: Path, format: str, texts: Mapping[str, str] | None = None) -> None:
    """Write `sae` as another library's folder, atomically; `texts` are files to put beside it.

    StudyError where the format is unknown or can't hold this SAE, or `folder` is not empty.
    """
    writers = {
        "saelens": save,
        "dictionary_learning": write_dictionary_learning,
        "sparsify": write_sparsify,
    }
    if format not in writers:
        raise StudyError(f"format {format!r}: unknown; allowed: {', '.join(FORMATS)}")
    if format == "saelens" and not sae.in_saelens:
        raise StudyError(
            f"format saelens: has no architecture {sae.stored_architecture}; export a cell of "
            "another activation"
        )
    if format != "saelens" and sae.transcodes:
        raise StudyError(f"format {format}: no transcoder is written in it; use saelens")
    if format != "saelens" and crosscoder_of(sae) is not None:
        raise StudyError(
            f"format {format}: no crosscoder is written in it; use saelens, which reads one as an "
            "SAE on the activations of its hooks side by side"
        )
    if format == "sparsify" and sae.architecture != SPARSIFY.architecture:
        raise StudyError(
            f"format sparsify: holds TopK only, not {sae.architecture}; export a topk cell, or use "
            "saelens or dictionary_learning, which hold every architecture"
        )
    with new_folder(folder) as temporary:
        writers[format](sae, temporary)
        for name, text in (texts or {}).items():
            write_text(temporary / name, text)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` at the end; StudyError where something is there."""
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StudyError(f"{folder}: there already, and not an empty folder; choose another")
    with replacing_folder(folder) as temporary:
        yield temporary


def import_sae(path: Path) -> SAE:
    """The SAE in a folder of any of the four formats, on raw activations, rows of W_dec unit.

    Norms of rows go to the encoder, which changes neither x̂ nor what fires; a TopK SAE whose
    rows differ in norm is refused. `metadata` keeps what its library knew of it. StudyError where
    the format, the class or the tensors are none that can be read here.
    """
    path = Path(path)
    readers = {
        "saelens": read_saelens,
        "dictionary_learning": read_dictionary_learning,
        "sparsify": read_sparsify,
        "gemma_scope": read_gemma_scope,
    }
    for format, files in FILES.items():
        if all((path / file).is_file() for file in files):
            return readers[format](path)
    if path.is_file():
        raise StudyError(f"{path}: a file; give the folder that it lies in")
    looked = "; ".join(f"{' + '.join(files)} ({format})" for format, files in FILES.items())
    raise StudyError(f"{path}: no SAE there; looked for {looked}")


def import_release(release: str, sae_id: str) -> SAE:
    """A pretrained SAE by SAELens's names for it.

    Example: import_release("gpt2-small-res-jb", "blocks.8.hook_resid_pre").

    StudyError where sae_lens is not installed, the hub can't be reached, or it has no such SAE.
    """
    source = f"{release}:{sae_id}"
    if find_spec("sae_lens") is None:
        raise StudyError(f"{source}: needs sae_lens; pip install 'sae-repro[saelens]'")
    reachable(source)  # before the import, which takes longer than the answer
    with TemporaryDirectory() as temporary, fetching(source):
        _download(release, sae_id, Path(temporary))
        return import_sae(Path(temporary))


def _download(release: str, sae_id: str, folder: Path) -> None:
    sae_lens: Any = import_module("sae_lens")  # an extra, and without types
    try:
        sae_lens.SAE.from_pretrained(release, sae_id).save_model(folder)
    except ValueError as error:
        raise StudyError(
            f"{release}:{sae_id}: SAELens has no such SAE ({one_line(error)}); its list: "
            "https://decoderesearch.github.io/SAELens/latest/pretrained_saes/"
        ) from None
