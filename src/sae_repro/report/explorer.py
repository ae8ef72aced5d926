"""The explorer of latents: static files that a browser opens from a disk, without a server.

explorer/index.html              the application, with its scripts: see `sae_repro.report.page.WEB`
explorer/data/index.js           the study and its SAEs
explorer/data/<id>/latents.js    a value per latent in each column
explorer/data/<id>/tokens.js     tokens, with the latents whose largest activations are on them
explorer/data/<id>/contexts-<n>.js   what the pages of the n-th `report.chunk` latents show
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_repro.autoencoders import levelled, load
from sae_repro.concepts.bank import ConceptBank
from sae_repro.params import Cell, Evaluate, Report
from sae_repro.progress import say
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.joined import LevelledStore
from sae_repro.report.codes import ValidationRows, activations
from sae_repro.report.columns import columns, frequent_tokens
from sae_repro.report.contexts import contexts_of, peaks
from sae_repro.report.details import concepts_by_latent, details, judge_scores
from sae_repro.report.directions import Directions, concept_bank, directions
from sae_repro.report.layout import maps
from sae_repro.report.lens import Lens
from sae_repro.report.relations import correlated, neighbours, partners
from sae_repro.report.scripts import write_script
from sae_repro.report.shown import ShownSae
from sae_repro.report.splitting import Width, family, kin


@dataclass(frozen=True)
class Source:
    """What all SAEs of a study share."""

    store: LevelledStore
    rows: ValidationRows
    corpus: TokenDocuments
    lens: Lens
    report: Report
    evaluate: Evaluate
    seed: int

    @classmethod
    def read(cls, artifacts: Path, report: Report, evaluate: Evaluate, seed: int) -> "Source":
        """That of the study with these artifacts."""
        store = LevelledStore(artifacts / "extract")
        corpus = TokenDocuments.load(artifacts / "corpus")
        model = (artifacts / "subject" / "config.json").is_file()
        lens = Lens.read(artifacts / "subject", corpus) if model else Lens(None, corpus)
        return cls(store, ValidationRows.read(store), corpus, lens, report, evaluate, seed)

    @cached_property
    def bank(self) -> ConceptBank:
        """The concepts of the validation tokens."""
        return concept_bank(self.corpus.folder, self.store, self.evaluate, self.seed)

    def directions(self, shown: ShownSae) -> Directions | None:
        """Those of concepts where an SAE's atoms lie; None where it wasn't scored on concepts."""
        if shown.table("concepts") is None and shown.table("monosemantic") is None:
            return None
        hook = shown.decodes_at
        if hook not in self._directions:
            self._directions[hook] = directions(self.bank, self.store, hook)
        return self._directions[hook]

    @cached_property
    def _directions(self) -> dict[str, Directions]:
        return {}

    def dictionary(self, shown: ShownSae) -> Width:
        """An SAE's atoms, and its code of all validation tokens."""
        sae = levelled(load(shown.trained), self.store.levels(shown.hook))
        a_nk = activations(sae, self.store, shown.hook)
        tokens = [self.lens.texts(ids) for ids in frequent_tokens(a_nk, self.rows.tokens)]
        return Width(shown, sae.weights.W_dec.numpy(), np.diff(a_nk.indptr) > 0, a_nk, tokens)


def write_data(
    folder: Path,
    cells: Mapping[str, Cell],
    saes: Sequence[ShownSae],
    source: Source,
    study: Mapping[str, Any],
) -> None:
    """Write the data of `saes`, some of `cells`, into `folder`; `study` are facts for the index."""
    dictionaries: dict[str, Width] = {}

    def read(shown: ShownSae | None) -> Width | None:
        if shown is None:
            return None
        if shown.id not in dictionaries:
            dictionaries[shown.id] = source.dictionary(shown)
        return dictionaries[shown.id]

    widths = [source.dictionary(shown) for shown in saes]
    dictionaries.update((width.shown.id, width) for width in widths)
    entries = []
    for one in widths:
        others = [other for other in widths if _comparable(one, other)]
        narrower, wider = (read(shown) for shown in kin(cells, one.shown))
        entry = _write_sae(folder / one.shown.id, one, others, (narrower, wider), source)
        entries.append(entry)
    write_script(folder / "index.js", "index", {**study, "saes": entries})


def _comparable(one: Width, other: Width) -> bool:
    hooks, others = ((o.shown.hook, o.shown.decodes_at) for o in (one, other))
    return other is not one and hooks == others


def _write_sae(
    folder: Path,
    one: Width,
    others: Sequence[Width],
    related: tuple[Width | None, Width | None],
    source: Source,
) -> dict[str, Any]:
    """Write the data of one SAE; its entry of the index."""
    shown, lens = one.shown, source.lens
    width, d_in = one.atoms_kd.shape
    hook = shown.decodes_at
    tokens = lens.tokens(torch.from_numpy(one.atoms_kd)) if lens.fits(hook, d_in) else None
    table = columns(
        shown,
        one.top_tokens,
        neighbours(one.atoms_kd, one.alive_k),
        correlated(one.a_nk),
        {o.shown.id: partners(one.atoms_kd, one.alive_k, o.atoms_kd, o.alive_k) for o in others},
        tokens,
    )
    write_script(folder / "latents.js", f"{shown.id}/latents", table)
    write_script(folder / "tokens.js", f"{shown.id}/tokens", peaks(shown.contexts))
    chunks = _write_contexts(folder, one, related, source)
    say(f"report: {shown.name}: {width} latents, {mebibytes(folder)} of data")
    return {
        "id": shown.id,
        "cell": shown.cell,
        "seed": shown.seed,
        "architecture": shown.architecture,
        "hook": shown.hook,
        "unit": shown.unit,
        "D": d_in,
        "K": width,
        "l0": shown.measured["metrics"].get("l0"),
        "fvu": shown.measured["metrics"].get("fvu"),
        "m": shown.measured["metrics"].get("monosemantic_fraction_alive"),
        "chunk_size": source.report.chunk,
        "chunks": chunks,
        "partner_ids": [other.shown.id for other in others],
    }


def _write_contexts(
    folder: Path, one: Width, related: tuple[Width | None, Width | None], source: Source
) -> int:
    """Write the pages of all latents; the number of files."""
    shown, settings = one.shown, source.evaluate
    contexts = contexts_of(
        shown.contexts, settings.quantiles, settings.context_tokens, one.a_nk, source.rows,
        source.corpus, source.report,
    )  # fmt: skip
    concepts = concepts_by_latent(shown, one.atoms_kd, source.directions(shown))
    judged, around = judge_scores(shown), maps(one.atoms_kd, one.alive_k)
    families = family(one, *related)
    starts = range(0, len(one.atoms_kd), source.report.chunk)
    for number, start in enumerate(starts):
        pages = [
            details(
                k, one.a_nk, one.atoms_kd[k], contexts, concepts, judged, around[k], families[k]
            )
            for k in range(start, min(start + source.report.chunk, len(one.atoms_kd)))
        ]
        write_script(folder / f"contexts-{number}.js", f"{shown.id}/contexts/{number}", pages)
    return len(starts)


def mebibytes(path: Path) -> str:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return f"{sum(p.stat().st_size for p in files) / 2**20:.2f} MiB"
