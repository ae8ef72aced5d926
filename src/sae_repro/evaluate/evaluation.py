"""The evaluation of one SAE: metrics.json, latents, documents, contexts, and chosen metrics."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from sae_repro.autoencoders import SAE, crosscoder_of, levelled, load
from sae_repro.evaluate import contexts
from sae_repro.evaluate.codes import CodeFile
from sae_repro.evaluate.crosscoded import by_hook, owners
from sae_repro.evaluate.document_fidelity import fidelity_columns, splice_fault
from sae_repro.evaluate.first_pass import FirstPass, corpus_of
from sae_repro.evaluate.held_out import Batch, held_out, validation_batches
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.ratios import FIDELITY, FIDELITY_UNSEEN, intervals, values
from sae_repro.evaluate.reconstruction import Totals, accumulate, relative_threshold, summarise
from sae_repro.evaluate.registry import at_one_hook, by_token, chosen_metrics
from sae_repro.files import read_json, write_json
from sae_repro.numerics.intervals import wilson
from sae_repro.params import Evaluate
from sae_repro.readers.joined import LevelledStore
from sae_repro.readers.shards import GIVEN_ROWS


def evaluate_into(study: Evaluation, trained_sae: Path, folder: Path) -> None:
    """Write the folder of one evaluated SAE; that of a failed cell says that it failed."""
    from sae_repro.numerics.determinism import prepare

    trained = read_json(trained_sae / "train.json")
    kept = ("status", "hook", "d_in", "d_sae", "choices", "unreached")
    summary = {name: trained[name] for name in kept}
    summary |= {"activation": trained["choices"]["activation"]}
    if trained["status"] != "ok":
        _write_failure(folder, summary, trained["reason"])
        return
    metrics, study = study.settings.metrics, study.common
    settings, hook = study.settings, trained["hook"]
    target = trained["choices"].get("target_hook")  # of a transcoder
    prepare(device=settings.device, threads=settings.threads)
    store = LevelledStore(study.activations)
    as_trained = load(trained_sae, device=settings.device)
    sae = levelled(as_trained, store.levels(hook))
    cross = crosscoder_of(sae)

    def batches(of: str = hook) -> Iterator[Batch]:
        return validation_batches(store, of, settings.batch_size, settings.device)

    read = held_out(store, hook, settings.batch_size, settings.device)
    shared = held_out(store, target, settings.batch_size, settings.device) if target else read
    with TemporaryDirectory(dir=folder) as scratch:
        codes = CodeFile(Path(scratch))
        targets = batches(target) if target else None
        widths = cross.widths if cross else ()
        totals = accumulate(sae, batches(), shared, codes.append, targets, widths)
        codes.close()
        broken = int((~np.isfinite(totals.document_error)).sum())
        if broken:
            reason = (
                f"the reconstruction is not finite in {broken} of {len(totals.document_error)} "
                "validation documents"
            )
            _write_failure(folder, summary | {"status": "failed"}, reason)
            return
        top, sample = contexts.collect(codes, totals.histogram_kb, settings, study.seed)
        first_pass = FirstPass(study, sae, store, hook, batches, codes, totals, folder, target)
        chosen = chosen_metrics(first_pass, metrics)
    fault = splice_fault(study, target or hook)
    not_measured = [f"no fidelity: {fault}"] if fault else []
    if store.manifest["pooling"] == GIVEN_ROWS:
        left_out = ", ".join(["fidelity", *by_token(metrics, classes=first_pass.classes)])
        not_measured.append(f"not measured, for want of a language model: {left_out}")
    if cross is not None and (left := at_one_hook(metrics)):
        not_measured.append(f"not measured, of several hooks at once: {', '.join(left)}")
    fidelity = fidelity_columns(study, as_trained, store, hook, shared.document, target)
    documents = totals.by_document() | fidelity
    measured = summarise(totals, sae.d_out, settings.dead_threshold)
    measured |= values(FIDELITY | FIDELITY_UNSEEN, documents)
    bounds = _dead_intervals(totals, settings) | intervals(documents, study.seed)
    write_json(
        folder / "metrics.json",
        {
            **summary,
            "input_offset": read.offset,
            **({"not_measured": not_measured} if not_measured else {}),
            "metrics": measured | chosen.metrics,
            "counts": _counts(totals, documents) | chosen.counts,
            "intervals": bounds | chosen.intervals,
            **({"hooks": by_hook(cross, store, totals, settings, study.seed)} if cross else {}),
        },
    )
    if cross is not None:
        _write_frame(owners(cross), folder / "crosscoder.parquet")
    _write_latents(totals, sae, folder)
    _write_frame(documents, folder / "documents.parquet")
    contexts.table(top, sample, _texts(study), settings).to_parquet(
        folder / "contexts.parquet", index=False, compression="zstd"
    )


@lru_cache(maxsize=1)
def _texts(study: Evaluation) -> contexts.Texts:
    """The texts that a process's cells share."""
    return contexts.Texts(corpus_of(study), study.settings.context_tokens)


def _write_failure(folder: Path, summary: dict[str, Any], reason: str) -> None:
    nothing: dict[str, Any] = {"metrics": {}, "counts": {}, "intervals": {}}
    write_json(folder / "metrics.json", {**summary, "reason": reason, **nothing})


def _counts(totals: Totals, documents: dict[str, npt.NDArray[Any]]) -> dict[str, int]:
    """The denominators of the metrics that every cell has."""
    targets = documents["targets"]
    return {
        "tokens": totals.tokens,
        "documents": len(documents["document"]),
        "latents": len(totals.fired_k),
        "latents_alive": int((totals.fired_k > 0).sum()),
        "zero_norm_tokens": totals.zero_norm,
        "tokens_unseen": int(totals.held_out.unseen_tokens.sum()),
        "fidelity_tokens": int(targets.sum()),
        "fidelity_tokens_unseen": int(documents["unseen_targets"].sum()),
        "fidelity_documents": int((targets > 0).sum()),
    }


def _dead_intervals(totals: Totals, settings: Evaluate) -> dict[str, list[float]]:
    """95 % Wilson intervals of the fractions of latents that are dead."""
    k = len(totals.fired_k)
    dead = {
        "dead_fraction_never": totals.fired_k == 0,
        "dead_fraction_below": totals.max_k < settings.dead_threshold,
        "dead_fraction_below_relative": totals.max_k < relative_threshold(totals),
    }
    return {name: list(wilson(int(mask.sum()), k)) for name, mask in dead.items()}


def _write_latents(totals: Totals, sae: SAE, folder: Path) -> None:
    fired = totals.fired_k
    density = fired / totals.tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        log_density = np.where(fired > 0, np.log10(density), np.nan)
        mean = np.where(fired > 0, totals.sum_k / fired, np.nan)
    columns = {
        "latent": np.arange(len(fired), dtype=np.int32),
        "density": density,
        "log10_density": log_density,
        "n_fired": fired,
        "mean_activation": mean,
        "max_activation": totals.max_k,
        "decoder_norm": sae.weights.W_dec.double().norm(dim=1).cpu().numpy(),
    }
    _write_frame(columns, folder / "latents.parquet")


def _write_frame(columns: dict[str, npt.NDArray[Any]], path: Path) -> None:
    import pandas as pd

    pd.DataFrame(columns).to_parquet(path, index=False, compression="zstd")
