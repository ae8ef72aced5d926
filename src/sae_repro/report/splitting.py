"""Parents and children of latents across widths: how latents split when a dictionary grows.

Between two SAEs alike but for their width, a latent of the wider one is the child of the latent of
the narrower one whose atom is nearest to its own. Beside that cosine stands the fraction of the
child's tokens on which the parent fires as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from sae_repro.params import Cell
from sae_repro.report.relations import partners
from sae_repro.report.shown import ShownSae

CHILDREN = 5
TOKENS = 3  # named per latent
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Width:
    """A dictionary of one width, with its code of all validation tokens."""

    shown: ShownSae
    atoms_kd: Array
    alive_k: npt.NDArray[np.bool_]
    a_nk: csc_array
    top_tokens: Sequence[Sequence[str]]


def kin(cells: Mapping[str, Cell], shown: ShownSae) -> tuple[ShownSae | None, ShownSae | None]:
    """The next narrower and the next wider SAE that differ by their width alone."""
    alike = [
        (cell.expansion, sae)
        for name, cell in cells.items()
        if name != shown.cell and _but_width(cell) == _but_width(cells[shown.cell])
        if cell.expansion is not None
        for sae in _same_seed(name, cell, shown)
    ]
    own = cells[shown.cell].expansion
    if own is None:
        return None, None
    narrower = [pair for pair in alike if pair[0] < own]
    wider = [pair for pair in alike if pair[0] > own]
    return (
        max(narrower, key=lambda pair: pair[0])[1] if narrower else None,
        min(wider, key=lambda pair: pair[0])[1] if wider else None,
    )


def _but_width(cell: Cell) -> dict[str, Any]:
    return cell.model_dump(exclude={"expansion", "seeds"})


def _same_seed(name: str, cell: Cell, shown: ShownSae) -> list[ShownSae]:
    """The SAE of the seed of `shown`, or else the cell's first; none where it failed."""
    members = cell.members()
    place = shown.place if shown.place in members else next(iter(members))
    sae = ShownSae(name, place, members[place], shown.artifacts)
    return [sae] if sae.measured["status"] == "ok" else []


def family(own: Width, narrower: Width | None, wider: Width | None) -> list[dict[str, Any]]:
    """Per latent of `own`: {parents, children}, each {sae, latents} of an SAE that there is.

    `latents` are rows [latent, cosine, fraction of the child's tokens with the parent, tokens].
    """
    found: list[dict[str, Any]] = [{} for _ in own.top_tokens]
    if narrower is not None:
        for child, parent, cosine, together in _links(narrower, own):
            row = [parent, cosine, together, narrower.top_tokens[parent][:TOKENS]]
            found[child]["parents"] = {"sae": narrower.shown.id, "latents": [row]}
    if wider is not None:
        links = sorted(_links(own, wider), key=lambda link: (-link[2], link[0]))
        for child, parent, cosine, together in links:
            row = [child, cosine, together, wider.top_tokens[child][:TOKENS]]
            none: dict[str, Any] = {"sae": wider.shown.id, "latents": [], "more": 0}
            children = found[parent].setdefault("children", none)
            if len(children["latents"]) < CHILDREN:
                children["latents"].append(row)
            else:
                children["more"] += 1
    return found


def _links(parents: Width, children: Width) -> list[tuple[int, int, float, float]]:
    """(child, parent, cosine, fraction of the child's tokens on which the parent fires)."""
    nearest = partners(children.atoms_kd, children.alive_k, parents.atoms_kd, parents.alive_k)
    links = []
    for child, related in enumerate(nearest):
        for parent, cosine in related:
            fires, above = _rows(children.a_nk, child), _rows(parents.a_nk, parent)
            together = len(np.intersect1d(fires, above, assume_unique=True)) / len(fires)
            links.append((child, parent, cosine, together))
    return links


def _rows(a_nk: csc_array, latent: int) -> Array:
    rows: Array = a_nk.indices[a_nk.indptr[latent] : a_nk.indptr[latent + 1]]
    return rows
