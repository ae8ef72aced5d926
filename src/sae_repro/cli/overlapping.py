"""The command `overlap`: which latents of a wider SAE fire where a narrower one's do."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_repro.cli.output import echo
from sae_repro.cli.trained import StudyOption
from sae_repro.numerics.kernels import choose
from sae_repro.params import load

if TYPE_CHECKING:
    from sae_repro.latents.overlap_trees import Node

MEASURES = {
    "cosine_new": "new by cosine",
    "cosine_split": "split by cosine",
    "cosine_copy": "copy by cosine",
    "overlap_new": "new by overlap",
    "overlap_split": "split by overlap",
    "overlap_copy": "copy by overlap",
    "contained_new": "of the new by cosine: children by overlap",
    "jaccard": "largest Jaccard, mean",
    "same_nearest": "nearest by cosine and by Jaccard the same",
    "same_nearest_old": "  of copies and splits by cosine",
    "same_nearest_new": "  of the new by cosine",
    "overlap_narrow_split": "narrow latents with several children by overlap",
    "overlap_narrow_lost": "narrow latents with none",
    "covered": "tokens of such a parent that its children cover, median",
    "at_once": "children that fire there at once, median",
}
"""Measures of a step, in the order of its table."""
MOST_CHILDREN = 4
"""Of a latent of a tree, that are printed."""


def overlap(
    cell: Annotated[
        list[str],
        typer.Argument(help="Cells, or CELL/seed-N, by rising width: NARROW WIDE [WIDER ...]."),
    ],
    containment: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Least containment beyond chance of a child in its parent."
        ),
    ] = 0.5,
    trees: Annotated[int, typer.Option(min=0, help="Splitting trees to print.")] = 3,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to write steps.csv and latents.parquet to: new or empty."),
    ] = None,
    study: StudyOption = Path(),
) -> None:
    """List which latents of a wider SAE are new, split or copied.

    Every SAE encodes all held-out tokens. A latent w of the wide SAE is contained in a latent n of
    the narrow one as far as n fires on the tokens of w; beyond chance that is
    (P(n|w) - P(n)) / (1 - P(n)). Where it reaches --containment, w is a child of n (of several n,
    of the most similar by Jaccard). Without a parent w is new; an only child is a copy, others are
    splits. Shares by decoder cosine, as `compare` has them, are listed for comparison.

    Same width: another seed of the narrow cell in place of the wide one. Shuffled: the wide SAE's
    tokens in random order. Of cells with several seeds, numbers are means over pairs of different
    seeds, with a 95 % interval from three seeds up; trees are those of the first seed.

    Examples:

    sae-repro overlap topk-x2-k16 topk-x4-k16 topk-x8-k16 topk-x16-k16

    sae-repro overlap topk-x4-k16/seed-0 topk-x8-k16/seed-0 --trees 20 --to overlap
    """
    loaded = load(study / "params.yaml")
    if not {"numpy", "torch"} & set(sys.modules):
        choose(loaded.compute.bits)
    from sae_repro.autoencoders.interchange import new_folder
    from sae_repro.contents import check
    from sae_repro.latents.overlap_steps import step_rows
    from sae_repro.latents.overlap_trees import grown
    from sae_repro.latents.overlapping import levels, named
    from sae_repro.latents.truncated_cell import tokens_of
    from sae_repro.numerics.determinism import prepare
    from sae_repro.progress import bar

    found, notes = named(study, loaded.cells, list(dict.fromkeys(cell)))
    check(study / "artifacts/extract", "manifest.json")
    prepare(device="cpu", threads=1)
    with new_folder(to) if to is not None else nullcontext() as folder:
        tokens = tokens_of(study, found[0][0])
        with bar("encoding", unit="tokens", total=tokens) as progress:
            widths = levels(loaded, study, found, progress.update)
        echo("\n".join([f"{_hook(found[0][0].where)}, {tokens:,} held-out tokens", *notes]))
        rows = []
        for row in step_rows(widths, containment, loaded.seed):
            echo("\n" + "\n".join(_step_lines(row)))
            rows.append(row)
        grown_trees = grown(widths, containment)
        largest = [tree for tree in grown_trees if tree.leaves(len(widths) - 1) > 1][:trees]
        for number, tree in enumerate(largest, start=1):
            echo("\n" + "\n".join(_tree_lines(number, tree, len(widths) - 1)))
        if folder is not None:
            _write(folder, rows, grown_trees)
    if to is not None:
        echo(f"\nwrote {to}/steps.csv, latents.parquet")


def _hook(where: Sequence[str | None]) -> str:
    return " → ".join(hook for hook in where if hook)


def _step_lines(row: Mapping[str, Any]) -> Iterator[str]:
    from tabulate import tabulate

    from sae_repro.compare.tables import number, with_interval
    from sae_repro.latents.overlapping import LEAST

    yield (
        f"K {row['K_narrow']:,} → {row['K_wide']:,}: {row['narrow']} → {row['wide']}, L0 "
        f"{row['l0_narrow']:.1f} → {row['l0_wide']:.1f}, {_count(row['pairs'], 'pair')} of seeds"
    )
    yield (
        f"{row['latents_wide']:,.0f} latents of the wide SAE fire, {row['rare_wide']:,.0f} of them "
        f"on fewer than {LEAST} tokens: these are only in the shares by cosine"
    )
    shown = [
        {
            "": label,
            "across": with_interval(row[name], (row[f"{name}_low"], row[f"{name}_high"])),
            "same width": number(row[f"{name}_same_width"]),
            "shuffled": number(row.get(f"{name}_shuffled")),
        }
        for name, label in MEASURES.items()
    ]
    yield str(tabulate(shown, headers="keys", disable_numparse=True, preserve_whitespace=True))


def _tree_lines(number: int, tree: "Node", widest: int) -> Iterator[str]:
    yield f"tree {number}: {_count(tree.leaves(widest), 'latent')} of the widest SAE"
    yield from _node_lines(tree)


def _node_lines(node: "Node") -> Iterator[str]:
    row, indent = node.row, "  " * node.level
    measured = ""
    if row.get("parent") is not None:
        measured = (
            f"contained {row['containment']:.2f}, Jaccard {row['jaccard']:.2f}, "
            f"cosine {row['cosine']:.2f}, "
        )
    other = ""
    if measured and row["nearest_cosine"] != row["parent"]:
        other = f" (by cosine: {row['nearest_cosine']}, {row['largest_cosine']:.2f})"
    yield (
        f"{indent}K {row['K']:,} latent {row['latent']}: {measured}fires on {row['density']:.2%}, "
        f"{row['name']}{other}"
    )
    ordered = sorted(node.children, key=lambda child: -child.row["jaccard"])
    for child in ordered[:MOST_CHILDREN]:
        yield from _node_lines(child)
    if len(ordered) > MOST_CHILDREN:
        yield f"{indent}  … and {_count(len(ordered) - MOST_CHILDREN, 'more')}"


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 or word == 'more' else 's'}"


def _write(folder: Path, rows: Sequence[Mapping[str, Any]], trees: "Sequence[Node]") -> None:
    import pandas as pd

    from sae_repro.files import write_text
    from sae_repro.latents.overlap_trees import table

    text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    write_text(folder / "steps.csv", text)
    latents = pd.DataFrame(table(trees)).astype({"parent": "Int64", "nearest_cosine": "Int64",
                                                 "nearest_jaccard": "Int64"})  # fmt: skip
    latents.to_parquet(folder / "latents.parquet", index=False, compression="zstd")
