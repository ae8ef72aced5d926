"""The commands `export` and `import`: SAEs in the formats of other libraries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sae_repro.errors import StudyError, did_you_mean

if TYPE_CHECKING:
    from sae_repro.autoencoders import SAE


def export(
    cell: Annotated[str, typer.Argument(help="Name of a trained cell, or a folder with an SAE.")],
    format: Annotated[
        Literal["saelens", "dictionary_learning", "sparsify", "neuronpedia"],
        typer.Option(
            help="Library that will read it; sparsify holds TopK only. neuronpedia: dashboards of "
            "its latents, as SAEDashboard writes them."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder to write: a new or an empty one.")],
    study: Annotated[Path, typer.Option(help="Folder that holds params.yaml.")] = Path(),
    card: Annotated[
        bool,
        typer.Option("--card", help="Also write README.md, the model card of an evaluated cell."),
    ] = False,
) -> None:
    """Write an SAE in the format of another library.

    There it encodes and decodes as it does here. With --format neuronpedia, write dashboards of
    what its latents fire on. Run it in the study's folder.

    Examples:

    sae-repro export topk-x8-k16/seed-0 --format sparsify --to for-sparsify

    sae-repro export downloads/their-sae --format dictionary_learning --to for-others

    sae-repro export topk-x8-k16/seed-0 --format saelens --card --to for-the-hub

    sae-repro export topk-x8-k16/seed-0 --format neuronpedia --to dashboards
    """
    from sae_repro.autoencoders.interchange import export as write
    from sae_repro.cli.own_models import check_metadata

    if format == "neuronpedia":
        typer.echo(_dashboards(cell, study, to, card=card))
        return
    sae = _own_or_foreign(cell, study)
    check_metadata(sae.metadata, cell)
    write(sae, to, format, _card(cell, study, format) if card else None)
    typer.echo(f"{to}: {format}, {_described(sae)}" + (", with README.md" if card else ""))


def import_(
    source: Annotated[str, typer.Argument(help="Folder with an SAE, or RELEASE:SAE_ID.")],
    to: Annotated[Path, typer.Option(help="Folder to write: a new or an empty one.")],
) -> None:
    """Turn an SAE of another library into one that this one reads.

    The result is a folder like those of artifacts/train. The format is told by the files: SAELens
    (cfg.json, sae_weights.safetensors), dictionary_learning (config.json, ae.pt), sparsify
    (cfg.json, sae.safetensors) or Gemma Scope (params.npz). What can't be represented exactly is
    refused. RELEASE:SAE_ID is fetched from the hub by SAELens's names. Decoder rows become unit
    vectors.

    Examples:

    sae-repro import downloads/their-sae --to saes/theirs

    sae-repro import gpt2-small-res-jb:blocks.8.hook_resid_pre --to saes/gpt2-8
    """
    from sae_repro.autoencoders import save
    from sae_repro.autoencoders.interchange import import_release, import_sae, new_folder
    from sae_repro.cli.own_models import check_metadata

    # before anything is fetched: what can't be written need not be
    with new_folder(to) as folder:
        release, colon, sae_id = source.partition(":")
        fetch = colon and not Path(source).exists()
        sae = import_release(release, sae_id) if fetch else import_sae(Path(source))
        check_metadata(sae.metadata, source)
        save(sae, folder)
    typer.echo(f"{to}: {_described(sae)}")


def _dashboards(cell: str, study: Path, to: Path, *, card: bool) -> str:
    """Write the dashboards of an evaluated SAE; the line that says so."""
    from sae_repro.autoencoders.interchange import new_folder
    from sae_repro.dashboards import check_tokens, source, write_neuronpedia

    if card:
        raise StudyError("--card: describes a folder with an SAE; choose --format saelens for it")
    found = source(study, cell)
    check_tokens(found)
    with new_folder(to) as folder:
        latents = write_neuronpedia(found, folder)
    return (
        f"{to}: neuronpedia, {latents} of {found.sae.d_sae} latents fire; {_described(found.sae)}"
    )


def _card(cell: str, study: Path, format: str) -> dict[str, str]:
    from sae_repro.dashboards import model_card, source

    return {"README.md": model_card(source(study, cell), format)}


def _own_or_foreign(cell: str, study: Path) -> "SAE":
    """The SAE of a cell of `study`, or of a folder in any format."""
    from sae_repro.autoencoders import load
    from sae_repro.autoencoders.interchange import import_sae
    from sae_repro.params import load as load_study
    from sae_repro.params import saes_by_name

    folder = study / "artifacts" / "train" / cell
    if (folder / "cfg.json").is_file():
        return load(folder)
    if Path(cell).is_dir():
        return import_sae(Path(cell))
    params = study / "params.yaml"
    cells = load_study(params).cells if params.is_file() else {}
    entry = cells.get(cell)
    if entry is not None and entry.seeds is not None:
        raise StudyError(
            f"{cell} has several SAEs: name one, such as {next(iter(saes_by_name({cell: entry})))}"
        )
    raise StudyError(
        f"{cell}: neither a folder, nor a cell with an SAE in {folder.parent}; `sae-repro cells` "
        f"lists the cells and which are trained{did_you_mean(cell, set(cells) - {cell})}"
    )


def _described(sae: "SAE") -> str:
    metadata = sae.metadata or {}
    hook = metadata.get("hook_name") or metadata.get("submodule_name")
    return f"{sae.architecture}, D {sae.d_in}, K {sae.d_sae}" + (f", hook {hook}" if hook else "")
