"""Files of SAEDashboard 0.8 for Neuronpedia: batches of latents, those skipped, the settings.

A batch has the fields of their `NeuronpediaDashboardBatch`, with which it loads. Tables that this
study does not measure (correlated neurons and latents) are empty lists, as theirs are without them.
Everything is measured on held-out tokens; numbers are rounded as theirs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from sae_repro.dashboards.firings import Firings, firings
from sae_repro.dashboards.lens import direct_logits, unembedding
from sae_repro.dashboards.sources import Source
from sae_repro.errors import StudyError
from sae_repro.evaluate.quantiles import Groups, quantile_edges
from sae_repro.files import canonical_json, write_text
from sae_repro.params import layer_of, model_hook
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import row_key

BATCH = 128
"""Latents in a file."""
AROUND = 32
"""Tokens before and after the one that a context was chosen for."""
BARS = 50
ALIGNED = 3
PROMOTED = 10
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Place:
    """How Neuronpedia names an SAE: model, layer, set, and what tells it apart in the set."""

    model_id: str
    layer: int
    sae_set: str
    suffix: str | None

    @classmethod
    def of(cls, source: Source) -> "Place":
        """The model's name without its owner, the cell, and the seed."""
        cell, _, seed = source.name.partition("/")
        name = str(source.subject["name"]).rpartition("/")[2]
        try:
            layer = layer_of(model_hook(source.hook))
        except ValueError:
            raise StudyError(
                f"{source.name}: {source.hook} is in no block, and Neuronpedia names SAEs "
                "by layer; choose a cell on a hook of a block"
            ) from None
        return cls(name, layer, cell, seed or None)

    @property
    def batch(self) -> dict[str, Any]:
        """The first fields of a batch."""
        return {"model_id": self.model_id, "layer": self.layer, "sae_set": self.sae_set,
                "sae_id_suffix": self.suffix}  # fmt: skip


def write_neuronpedia(source: Source, folder: Path) -> int:
    """Write the files of all latents that fire on a held-out token into `folder`; their number."""
    place, sae = Place.of(source), source.sae
    fired = firings(sae, source.store, source.hook)
    lens_dv = unembedding(source.study / "artifacts/subject", source.hook, sae.d_out)
    contexts = _Contexts(source.corpus, source.table("contexts"))
    constant = {
        "n_prompts_total": source.measured["counts"]["documents"],
        "n_tokens_in_prompt": int(source.store.manifest["context"]),
        "dataset": source.corpus.name,
    }
    alive = np.flatnonzero(np.diff(fired.begin))
    for number, start in enumerate(range(0, len(alive), BATCH)):
        latents = alive[start : start + BATCH].tolist()
        logits = _Logits.of(sae.weights.W_dec[latents], lens_dv, contexts.vocabulary)
        features = [
            {
                "feature_index": latent,
                **_aligned(sae.weights.W_dec[latent]),
                **_NOT_MEASURED,
                **logits.of_row(row),
                **_histogram(fired, latent),
                **constant,
                "activations": list(contexts.of(latent, fired)),
                "decoder_weights_dist": [],
                "vector": [],
            }
            for row, latent in enumerate(latents)
        ]
        _write(folder / f"batch-{number}.json", {**place.batch, "features": features})
    dead = np.flatnonzero(np.diff(fired.begin) == 0).tolist()
    _write_settings(folder, place, constant, dead, contexts)
    return len(alive)


def _write(path: Path, value: dict[str, Any]) -> None:
    write_text(path, canonical_json(value) + "\n")


_NOT_MEASURED: dict[str, list[Any]] = {
    f"correlated_{what}_{column}": []
    for what in ("neurons", "features")
    for column in ("indices", "l1", "pearson")
}


def _write_settings(
    folder: Path, place: Place, constant: dict[str, Any], dead: list[int], contexts: "_Contexts"
) -> None:
    _write(
        folder / "skipped_indexes.json",
        {"model_id": place.model_id, "layer": str(place.layer), "sae_set": place.sae_set,
         "log_sparsity": -6, "skipped_indexes": dead},
    )  # fmt: skip
    _write(
        folder / "run_settings.json",
        {"sae_set": place.sae_set, "np_sae_id_suffix": place.suffix, "sae_path": "",
         "outputs_dir": "", "from_local_sae": True, "model_id": place.model_id,
         "layer": place.layer, "huggingface_dataset_path": constant["dataset"],
         "n_prompts_total": constant["n_prompts_total"],
         "n_tokens_in_prompt": constant["n_tokens_in_prompt"], "n_features_at_a_time": BATCH,
         "n_quantiles": contexts.quantiles, "top_acts_group_size": contexts.per_kind("top"),
         "quantile_group_size": contexts.per_kind("sample"), "sae_dtype": "float32",
         "model_dtype": "float32"},
    )  # fmt: skip


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 3) for value in values]


def _aligned(atom_d: Tensor) -> dict[str, Any]:
    """The dimensions with the largest weights, and their share of the atom's L1 norm."""
    values, indices = atom_d.topk(min(ALIGNED, len(atom_d)))
    total = float(atom_d.abs().sum()) or 1.0
    return {
        "neuron_alignment_indices": indices.tolist(),
        "neuron_alignment_values": _rounded(values),
        "neuron_alignment_l1": _rounded(values.abs() / total),
    }


@dataclass(frozen=True)
class _Logits:
    """Direct logits of some atoms [n, V]; None where the atoms have none."""

    logits_nv: Tensor | None
    vocabulary: Sequence[str]

    @classmethod
    def of(cls, atoms_nd: Tensor, lens_dv: Tensor | None, vocabulary: Sequence[str]) -> "_Logits":
        return cls(None if lens_dv is None else direct_logits(atoms_nd, lens_dv), vocabulary)

    def of_row(self, row: int) -> dict[str, Any]:
        if self.logits_nv is None:
            names = ("neg_str", "neg_values", "pos_str", "pos_values",
                     "logits_hist_data_bar_heights", "logits_hist_data_bar_values")  # fmt: skip
            return {name: [] for name in names}
        logits_v = self.logits_nv[row]
        n = min(PROMOTED, len(logits_v))
        most, least = logits_v.topk(n), logits_v.topk(n, largest=False)
        heights, values = _bars(logits_v.numpy())
        return {
            "neg_str": self._texts(least.indices),
            "neg_values": _rounded(least.values),
            "pos_str": self._texts(most.indices),
            "pos_values": _rounded(most.values),
            "logits_hist_data_bar_heights": heights,
            "logits_hist_data_bar_values": values,
        }

    def _texts(self, tokens: Tensor) -> list[str]:
        """Rows of the unembedding beyond the tokenizer's last token pad it, and have no text."""
        return [self.vocabulary[t] if t < len(self.vocabulary) else "<|outofrange|>"
                for t in tokens.tolist()]  # fmt: skip


def _histogram(fired: Firings, latent: int) -> dict[str, Any]:
    value = fired.of(latent)[1]
    heights, values = _bars(value)
    return {
        "frac_nonzero": round(len(value) / fired.tokens, 7),
        "freq_hist_data_bar_values": values,
        "freq_hist_data_bar_heights": heights,
    }


def _bars(values: Array) -> tuple[list[int], list[float]]:
    """(counts, middles) of equal bins from the least to the largest of `values`."""
    exact = values.astype(np.float64)  # bins of fp32 would merge where all values are about equal
    counts, edges = np.histogram(exact, bins=BARS)
    return counts.tolist(), _rounded((edges[:-1] + edges[1:]) / 2)


class _Contexts:
    """The contexts that the evaluation chose, with the activation on each of their tokens."""

    def __init__(self, corpus: TokenDocuments, table: pd.DataFrame) -> None:
        self._corpus = corpus
        self._rows = dict(iter(table.groupby(table["latent"].astype(int), sort=False)))
        self._table = table
        self.quantiles = int(table["quantile"].max()) + 1 if len(table) else 0
        tokenizer = corpus.tokenizer()
        # texts of single tokens: one that begins a word keeps the blank before it
        self.vocabulary = _texts(tokenizer, range(len(tokenizer)))

    def per_kind(self, kind: str) -> int:
        """The most contexts of a latent of one group of the `kind`."""
        rows = self._table[(self._table["kind"] == "top") == (kind == "top")]
        sizes = rows.groupby(["latent", "quantile"]).size()
        return int(sizes.max()) if len(sizes) else 0

    def of(self, latent: int, fired: Firings) -> Iterator[dict[str, Any]]:
        """The largest activations, then the samples, from the highest quantile to the lowest."""
        rows = self._rows.get(latent)
        if rows is None:
            return
        histogram_1b = fired.histogram(latent)[None]
        edges = quantile_edges(histogram_1b, self.quantiles)
        shares = Groups(edges).counts(histogram_1b)[0] / histogram_1b.sum()
        value = fired.of(latent)[1]
        ends = [0.0, *edges[0].tolist(), float(value.max())]
        top = rows[rows["kind"] == "top"].sort_values("rank")
        rest = rows[rows["kind"] != "top"].sort_values(
            ["quantile", "rank"], ascending=[False, True]
        )
        for row in [*top.to_dict("records"), *rest.to_dict("records")]:
            q = int(row["quantile"])
            bounds = (
                (-1.0, float(value.max()), -1.0)
                if row["kind"] == "top"
                else (ends[q], min(ends[q + 1], ends[-1]), float(shares[q]))
            )
            yield {
                **dict(zip(("bin_min", "bin_max", "bin_contains"), _rounded(bounds), strict=True)),
                **self._around(latent, int(row["document"]), int(row["position"]), fired),
            }

    def _around(self, latent: int, document: int, position: int, fired: Firings) -> dict[str, Any]:
        tokens = self._corpus.document(document)
        first = max(0, position - AROUND)
        last = min(len(tokens), position + AROUND + 1)
        places = np.arange(first, last)
        key = row_key(np.full(len(places), document), places)
        return {
            "tokens": [self.vocabulary[token] for token in tokens[first:last].tolist()],
            "values": _rounded(fired.at(latent, key)),
            "qualifying_token_index": position - first,
        }


def _texts(tokenizer: Any, ids: range) -> list[str]:
    """The text of each token where it follows another: with its blank, whatever the tokenizer."""
    decode = tokenizer.backend_tokenizer.decode_batch
    alone = decode([[i] for i in ids], skip_special_tokens=False)
    behind = decode([[0, i] for i in ids], skip_special_tokens=False)
    head = decode([[0]], skip_special_tokens=False)[0]
    return [
        pair[len(head) :] if pair.startswith(head) else text
        for text, pair in zip(alone, behind, strict=True)
    ]
