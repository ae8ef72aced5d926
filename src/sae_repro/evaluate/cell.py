"""The evaluation of one cell: metrics.json, latents, documents, contexts, and what is chosen."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sae_repro.autoencoders import SAE, load
from sae_repro.cellstore import CellStore
from sae_repro.evaluate import contexts
from sae_repro.evaluate.codes import CodeFile
from sae_repro.evaluate.fidelity import Windows, fidelity, recovered
from sae_repro.evaluate.first_pass import FirstPass
from sae_repro.evaluate.job import Evaluation
from sae_repro.evaluate.reconstruction import (
    Batch,
    Totals,
    accumulate,
    mean_of,
    relative_threshold,
    summarise,
)
from sae_repro.evaluate.registry import chosen_metrics
from sae_repro.files import read_json, write_json
from sae_repro.numerics.intervals import wilson
from sae_repro.params import Evaluate, on_random_weights
from sae_repro.readers.activations import ActivationStore
from sae_repro.readers.documents import TokenDocuments

FIDELITY = ("ce_clean", "ce_sae", "ce_zero", "ce_mean", "ce_recovered_zero", "ce_recovered_mean",
            "kl")  # fmt: skip


def validation_batches(
    store: ActivationStore, hook: str, size: int, device: str
) -> Iterator[Batch]:
    """(x [n, D] fp32, index [n, 3]) over all validation activations."""
    shards = zip(
        store.activations(hook, "validation").batches(size),
        store.index("validation").batches(size),
        strict=True,
    )
    for x, index in shards:
        # a copy: the shard is mapped read-only
        yield torch.from_numpy(np.array(x, dtype=np.float32)).to(device), index


def evaluate_into(study: Evaluation, trained_sae: Path, folder: Path) -> None:
    """Write the folder of one evaluated SAE; that of a failed cell says that it failed."""
    from sae_repro.numerics.determinism import prepare

    trained = read_json(trained_sae / "train.json")
    said = {name: trained[name] for name in ("status", "hook", "d_in", "d_sae", "choices")}
    said |= {"activation": trained["choices"]["activation"]}
    if trained["status"] != "ok":
        write_json(
            folder / "metrics.json",
            {**said, "reason": trained["reason"], "metrics": {}, "counts": {}, "intervals": {}},
        )
        return
    settings, hook = study.settings, trained["hook"]
    prepare(device=settings.device, threads=settings.threads)
    sae = load(trained_sae, device=settings.device)
    store = ActivationStore(study.activations)

    def batches() -> Iterator[Batch]:
        return validation_batches(store, hook, settings.batch_size, settings.device)

    mean_d, _, documents = mean_of(batches(), sae.d_in)
    with TemporaryDirectory(dir=folder) as scratch:
        codes = CodeFile(Path(scratch))
        totals = accumulate(sae, batches(), mean_d, documents, codes.append)
        codes.close()
        top, sample = contexts.collect(codes, totals.histogram_kb, settings, study.seed)
        first_pass = FirstPass(study, sae, store, hook, batches, codes, mean_d, totals, folder)
        chosen = chosen_metrics(first_pass)
    metrics = summarise(totals, sae.d_in, settings.dead_threshold)
    spliced, targets = _fidelity(study, sae, store, hook)
    latents = len(totals.fired_k)
    write_json(
        folder / "metrics.json",
        {
            **said,
            "metrics": metrics | spliced | chosen.metrics,
            "counts": {
                "tokens": totals.tokens,
                "documents": len(documents),
                "latents": latents,
                "latents_alive": int((totals.fired_k > 0).sum()),
                "zero_norm_tokens": totals.zero_norm,
                "fidelity_tokens": targets,
                **chosen.counts,
            },
            "intervals": _intervals(totals, settings) | chosen.intervals,
        },
    )
    _write_tables(totals, sae, folder)
    corpus = TokenDocuments.load(study.corpus)
    contexts.table(top, sample, corpus, settings).to_parquet(
        folder / "contexts.parquet", index=False, compression="zstd"
    )


def _intervals(totals: Totals, settings: Evaluate) -> dict[str, list[float]]:
    """95 % Wilson intervals of the shares of latents."""
    k = len(totals.fired_k)
    dead = {
        "dead_fraction_never": totals.fired_k == 0,
        "dead_fraction_below": totals.max_k < settings.dead_threshold,
        "dead_fraction_below_relative": totals.max_k < relative_threshold(totals),
    }
    return {name: list(wilson(int(which.sum()), k)) for name, which in dead.items()}


def _fidelity(
    study: Evaluation, sae: SAE, store: ActivationStore, hook: str
) -> tuple[dict[str, float | None], int]:
    """The fidelity metrics and their targets.

    None for all where rows are whole documents, and on random weights: the cross-entropy of a model
    that predicts nothing has nothing to lose or to recover.
    """
    if store.manifest["pooling"] != "token" or on_random_weights(hook):
        return dict.fromkeys(FIDELITY), 0
    from sae_repro.readers.subject import load_subject

    subject = load_subject(study.subject, device=study.settings.device)
    windows = Windows(study.activations / "windows", study.settings.fidelity_tokens)
    base = _baseline(study, store, hook, subject, windows)
    found = fidelity(subject, windows, hook, {"sae": lambda x: sae.decode(sae.encode(x))})
    clean, ours = base["ce_clean"], found["ce_sae"]
    return {
        "ce_clean": clean,
        "ce_sae": ours,
        "ce_zero": base["ce_zero"],
        "ce_mean": base["ce_mean"],
        "ce_recovered_zero": recovered(clean, ours, base["ce_zero"]),
        "ce_recovered_mean": recovered(clean, ours, base["ce_mean"]),
        "kl": found["kl_sae"],
    }, found["targets"]


def _baseline(
    study: Evaluation, store: ActivationStore, hook: str, subject: Any, windows: Windows
) -> dict[str, float]:
    """Clean, zeroed and mean-ablated cross-entropy: the same for all cells on a hook, so done once.

    The mean is that of the training activations.
    """
    mean_d = torch.from_numpy(store.mean(hook)).float().to(study.settings.device)
    cells = CellStore(study.store)
    key = f"{study.shared}-{hook}"
    with cells.making(key) as folder:
        if folder is not None:
            measured = fidelity(
                subject,
                windows,
                hook,
                {"zero": torch.zeros_like, "mean": lambda x: mean_d.expand_as(x)},
            )
            write_json(folder / "baseline.json", measured)
    result: dict[str, float] = read_json(cells.folder / key / "baseline.json")
    return result


def _write_tables(totals: Totals, sae: SAE, folder: Path) -> None:
    import pandas as pd

    fired = totals.fired_k
    density = fired / totals.tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        log_density = np.where(fired > 0, np.log10(density), np.nan)
        mean = np.where(fired > 0, totals.sum_k / fired, np.nan)
    pd.DataFrame(
        {
            "latent": np.arange(len(fired), dtype=np.int32),
            "density": density,
            "log10_density": log_density,
            "n_fired": fired,
            "mean_activation": mean,
            "max_activation": totals.max_k,
            "decoder_norm": sae.weights.W_dec.double().norm(dim=1).cpu().numpy(),
        }
    ).to_parquet(folder / "latents.parquet", index=False, compression="zstd")
    pd.DataFrame(
        {
            "document": totals.document,
            "tokens": totals.document_tokens,
            "l0_sum": totals.document_l0,
            "squared_error": totals.document_error,
            "total_variance": totals.document_variance,
        }
    ).to_parquet(folder / "documents.parquet", index=False, compression="zstd")
