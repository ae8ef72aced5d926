"""The explorer of latents: static files that a browser opens from a disk, without a server.

explorer/index.html              the application, with its scripts: see `sae_repro.report.page.WEB`
explorer/data/index.js           the study and its SAEs
explorer/data/<id>/latents.js    a value per latent in each column
explorer/data/<id>/tokens.js     tokens, with the latents whose largest activations are on them
explorer/data/<id>/contexts-<n>.js   what the pages of the n-th `report.chunk` latents show
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from sae_repro.autoencoders import SAE, load
from sae_repro.params import Evaluate, Report
from sae_repro.progress import say
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore
from sae_repro.report.codes import ValidationRows, activations
from sae_repro.report.columns import columns, frequent_tokens
from sae_repro.report.contexts import contexts_of, peaks
from sae_repro.report.details import concepts_by_latent, details, judge_scores
from sae_repro.report.lens import Lens
from sae_repro.report.relations import correlated, neighbours, partners
from sae_repro.report.scripts import write_script
from sae_repro.report.shown import ShownSae

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """What all SAEs of a study share."""

    store: ActivationStore
    rows: ValidationRows
    corpus: TokenDocuments
    lens: Lens
    report: Report
    evaluate: Evaluate

    @classmethod
    def read(cls, artifacts: Path, report: Report, evaluate: Evaluate) -> "Source":
        """That of the study with these artifacts."""
        store = ActivationStore(artifacts / "extract")
        corpus = TokenDocuments.load(artifacts / "corpus")
        lens = Lens.read(artifacts / "subject", corpus)
        return cls(store, ValidationRows.read(store), corpus, lens, report, evaluate)


@dataclass(frozen=True)
class Dictionary:
    """An SAE's atoms, and which of its latents fire."""

    shown: ShownSae
    sae: SAE

    @property
    def atoms_kd(self) -> Array:
        """W_dec."""
        atoms_kd: Array = self.sae.weights.W_dec.numpy()
        return atoms_kd

    @property
    def alive_k(self) -> npt.NDArray[np.bool_]:
        """Whether each latent fires on any validation token."""
        alive_k: npt.NDArray[np.bool_] = self.shown.latents["n_fired"].to_numpy() > 0
        return alive_k


def write_data(
    folder: Path, saes: Sequence[ShownSae], source: Source, study: Mapping[str, Any]
) -> None:
    """Write the data of `saes` into `folder`; `study` are facts for the index."""
    dictionaries = [Dictionary(shown, load(shown.trained)) for shown in saes]
    entries = []
    for one in dictionaries:
        others = [other for other in dictionaries if _comparable(one, other)]
        entries.append(_write_sae(folder / one.shown.id, one, others, source))
    write_script(folder / "index.js", "index", {**study, "saes": entries})


def _comparable(one: Dictionary, other: Dictionary) -> bool:
    return other is not one and other.shown.hook == one.shown.hook


def _write_sae(
    folder: Path, one: Dictionary, others: Sequence[Dictionary], source: Source
) -> dict[str, Any]:
    """Write the data of one SAE; its entry of the index."""
    shown, sae = one.shown, one.sae
    a_nk = activations(sae, source.store, shown.hook)
    lens = source.lens
    tokens = lens.tokens(sae.weights.W_dec) if lens.fits(shown.hook, sae.d_in) else None
    table = columns(
        shown,
        [lens.texts(ids) for ids in frequent_tokens(a_nk, source.rows.tokens)],
        neighbours(one.atoms_kd, one.alive_k),
        correlated(a_nk),
        {o.shown.id: partners(one.atoms_kd, one.alive_k, o.atoms_kd, o.alive_k) for o in others},
        tokens,
    )
    write_script(folder / "latents.js", f"{shown.id}/latents", table)
    write_script(folder / "tokens.js", f"{shown.id}/tokens", peaks(shown.contexts))
    chunks = _write_contexts(folder, one, a_nk, source)
    say(f"report: {shown.name}: {sae.d_sae} latents, {mebibytes(folder)} of data")
    return {
        "id": shown.id,
        "cell": shown.cell,
        "seed": shown.seed,
        "architecture": shown.architecture,
        "hook": shown.hook,
        "D": sae.d_in,
        "K": sae.d_sae,
        "l0": shown.measured["metrics"].get("l0"),
        "fvu": shown.measured["metrics"].get("fvu"),
        "m": shown.measured["metrics"].get("monosemantic_fraction_alive"),
        "chunk_size": source.report.chunk,
        "chunks": chunks,
        "partner_ids": [other.shown.id for other in others],
    }


def _write_contexts(folder: Path, one: Dictionary, a_nk: csc_array, source: Source) -> int:
    """Write the pages of all latents; the number of files."""
    shown, settings = one.shown, source.evaluate
    contexts = contexts_of(
        shown.contexts, settings.quantiles, settings.context_tokens, a_nk, source.rows,
        source.corpus, source.report,
    )  # fmt: skip
    concepts, judged = concepts_by_latent(shown), judge_scores(shown)
    starts = range(0, one.sae.d_sae, source.report.chunk)
    for number, start in enumerate(starts):
        latents = range(start, min(start + source.report.chunk, one.sae.d_sae))
        pages = [details(k, a_nk, one.atoms_kd[k], contexts, concepts, judged) for k in latents]
        write_script(folder / f"contexts-{number}.js", f"{shown.id}/contexts/{number}", pages)
    return len(starts)


def mebibytes(path: Path) -> str:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return f"{sum(p.stat().st_size for p in files) / 2**20:.2f} MiB"
