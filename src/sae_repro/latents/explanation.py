"""Latents of an SAE on a text: which are active, where, and how strongly."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array, vstack

from sae_repro.errors import StudyError
from sae_repro.latents.of_cell import CellSAE
from sae_repro.latents.reading import Reading, TextReader

Floats = npt.NDArray[np.float64]

TOP = 8
PER_TOKEN = 3
MOST_TOKENS = 4096
ROWS = 256  # tokens encoded at once


@dataclass(frozen=True)
class Active:
    """An activation of a latent, by its name."""

    latent: int
    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}"


@dataclass(frozen=True)
class Profile:
    """A latent over the whole text."""

    latent: int
    name: str
    z_t: Floats
    """Its activation at each of the T tokens; 0 at those that extraction leaves out."""
    mean: float
    """Over the tokens that are kept."""
    density: float | None
    """Fraction of held-out tokens on which it fires, where it is evaluated."""

    @property
    def largest(self) -> float:
        """Its largest activation on the text."""
        return float(self.z_t.max())

    @property
    def places(self) -> list[int]:
        """The tokens on which it is active."""
        return [int(t) for t in np.flatnonzero(self.z_t > 0)]


@dataclass(frozen=True)
class Explanation:
    """The latents of `cell` that are active on a text of T tokens."""

    cell: str
    hook: str
    d_sae: int
    tokens: list[str]
    kept: list[bool]
    """Whether extraction would keep each token; only those have latents here."""
    l0: float
    """Active latents per kept token."""
    fvu: float | None
    """Unexplained variance of the kept tokens, around the text's own mean; None of a transcoder."""
    profiles: list[Profile]
    """The latents with the largest means over the text, largest first."""
    strongest: list[list[Active]]
    """Of each token, its strongest latents, of all."""

    @property
    def largest(self) -> float:
        """The largest activation of the profiles: the end of the colour scale."""
        return max((profile.largest for profile in self.profiles), default=0.0)

    @property
    def shared(self) -> list[Profile]:
        """The profiles that are active on several tokens."""
        return [profile for profile in self.profiles if len(profile.places) > 1]

    @property
    def in_words(self) -> str:
        """`stock 4.62, market 3.97`: the profiles' means over the text."""
        return ", ".join(f"{profile.name} {profile.mean:.2f}" for profile in self.profiles)


def explain(
    cell: CellSAE,
    reader: TextReader,
    text: str,
    *,
    top: int = TOP,
    progress: Callable[[int], Any] | None = None,
) -> Explanation:
    """The `top` latents of `cell` on `text`, by their mean over its tokens.

    StudyError where the text has no token that extraction would keep, or more than `MOST_TOKENS`.
    """
    ids = reader.ids(text)
    if len(ids) > MOST_TOKENS:
        raise StudyError(
            f"the text has {len(ids):,} tokens; give a part of at most {MOST_TOKENS:,} of them"
        )
    reading = reader.read(ids, progress)
    kept_t = reading.kept_t.numpy()
    if not kept_t.any():
        raise StudyError(
            "the text has no token that extraction would keep (it leaves out a row's first "
            "position and massive activations); give more words"
        )
    z_tk = _latents(cell, reading)
    mean_k = np.asarray(z_tk.sum(axis=0)).ravel() / int(kept_t.sum())
    order = np.argsort(-mean_k, kind="stable")[:top]
    chosen = [int(latent) for latent in order if mean_k[latent] > 0]
    strongest = [_strongest(z_tk, t) for t in range(len(ids))]
    names = _told_apart(cell.names({*chosen, *(i for each in strongest for i, _ in each)}))
    columns = z_tk[:, chosen].toarray()
    measured = {latent: cell.measured(latent) for latent in chosen}
    return Explanation(
        cell=cell.name,
        hook=cell.hook,
        d_sae=cell.sae.d_sae,
        tokens=reading.tokens,
        kept=kept_t.tolist(),
        l0=z_tk.nnz / int(kept_t.sum()),
        fvu=_fvu(cell, reading, z_tk),
        profiles=[
            Profile(
                latent, names[latent], columns[:, place], float(mean_k[latent]),
                None if (facts := measured[latent]) is None else facts["density"],
            )
            for place, latent in enumerate(chosen)
        ],
        strongest=[
            [Active(latent, names[latent], value) for latent, value in each] for each in strongest
        ],
    )  # fmt: skip


def _told_apart(names: dict[int, str]) -> dict[int, str]:
    """`names` with the latent's number where several have the same: `name#423`."""
    count = Counter(names.values())
    return {i: f"{name}#{i}" if count[name] > 1 else name for i, name in names.items()}


def _latents(cell: CellSAE, reading: Reading) -> csr_array:
    """z [T, K], without rows of tokens that are not kept."""
    parts = []
    for begin in range(0, len(reading.tokens), ROWS):
        part = slice(begin, begin + ROWS)
        with torch.no_grad():
            z_nk = cell.sae.encode(reading.x_td[part])
        z_nk[~reading.kept_t[part]] = 0.0
        parts.append(csr_array(z_nk.double().numpy()))
    return csr_array(vstack(parts, format="csr"))


def _strongest(z_tk: csr_array, t: int) -> list[tuple[int, float]]:
    row = slice(z_tk.indptr[t], z_tk.indptr[t + 1])
    value, latent = z_tk.data[row], z_tk.indices[row]
    order: Sequence[int] = np.argsort(-value, kind="stable")[:PER_TOKEN].tolist()
    return [(int(latent[i]), float(value[i])) for i in order]


def _fvu(cell: CellSAE, reading: Reading, z_tk: csr_array) -> float | None:
    if cell.sae.transcodes:  # what it predicts was not read
        return None
    x_nd = reading.x_td[reading.kept_t].double()
    total = float((x_nd - x_nd.mean(dim=0)).square().sum())
    weights = cell.sae.weights
    x_hat = z_tk @ weights.W_dec.double().numpy() + weights.b_dec.double().numpy()
    error = float((x_nd - torch.from_numpy(x_hat)[reading.kept_t]).square().sum())
    return error / total if total else None
