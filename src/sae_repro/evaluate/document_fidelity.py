"""Fidelity of an evaluated SAE by validation document, beside its hook's baselines."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_repro.autoencoders import SAE
from sae_repro.autoencoders.encoder import Encoder
from sae_repro.cellstore import CellStore
from sae_repro.evaluate.codes import reconstructed
from sae_repro.evaluate.fidelity import Replace, Spliced, Untouched, Windows, fidelity
from sae_repro.evaluate.first_pass import subject_of
from sae_repro.evaluate.held_out import Counts, validation_batches
from sae_repro.evaluate.inputs import Evaluation
from sae_repro.evaluate.transcoded import prediction
from sae_repro.files import digest
from sae_repro.params import on_random_weights, parts_of
from sae_repro.params.hooks import HOOKS
from sae_repro.params.joint import hooks_in, is_joint
from sae_repro.readers.joined import JoinedStore
from sae_repro.readers.shards import ActivationStore

Columns = dict[str, npt.NDArray[Any]]

SAME = 1e-4
"""Largest difference of logits, as a fraction of their largest magnitude."""

COUNTS = ("targets", "unseen_targets")
LOSSES = (
    "ce_clean", "ce_sae", "ce_zero", "ce_mean", "kl",
    "unseen_ce_clean", "unseen_ce_sae", "unseen_ce_zero", "unseen_kl",
)  # fmt: skip


def fidelity_columns(
    study: Evaluation,
    sae: SAE,
    store: ActivationStore,
    hook: str,
    document: Counts,
    target: str | None = None,
) -> Columns:
    """Per document of the ids `document`: its targets, and the sum of each loss over them, nats.

    `unseen_` are those predicted at a position whose prefix no training row has. Documents beyond
    `evaluate.fidelity_tokens` have none. Nor has any document where rows are whole documents, on
    random weights, as the cross-entropy of a model that predicts nothing has nothing to lose or to
    recover, or where nothing can be put in the place of activations (`splice_fault`).

    A crosscoder's x̂, of the untouched activations at all its hooks, takes their place at all of
    them at once. A transcoder's prediction takes the place of the activations at its `target` hook.
    """
    if not _spliced(store, hook) or splice_fault(study, target or hook):
        return _aligned({}, document)

    encoder = Encoder(sae)

    def x_hat(x_nd: Tensor) -> Tensor:
        return reconstructed(encoder, x_nd, np.empty((len(x_nd), 3), dtype=np.int32))[1]

    replace: Replace = x_hat
    if target is not None:
        settings = study.settings
        inputs = validation_batches(store, hook, settings.batch_size, settings.device)
        hook, replace = target, prediction(sae, inputs)
    sums = fidelity(_untouched(study, hook), {"sae": replace}).sums
    measured = {
        f"{among}{name}": sums[f"{among}{of}"]
        for among in ("", "unseen_")
        for name, of in (("ce_sae", "ce_sae"), ("kl", "kl_sae"))
    }
    return _aligned(_baseline(study, hook) | measured, document)


def _spliced(store: ActivationStore, hook: str) -> bool:
    return store.manifest["pooling"] == "token" and not on_random_weights(hook)


@lru_cache(maxsize=8)
def splice_fault(study: Evaluation, hook: str) -> str | None:
    """Why no other activations can take the place of those at `hook`; None where they can.

    Tried on the first windows, at hooks that not every model has: a model may only show there what
    it computes with elsewhere.
    """
    store = ActivationStore(study.activations)
    if is_joint(hook):
        faults = (splice_fault(study, one) for one in hooks_in(hook))
        return next((fault for fault in faults if fault), None)
    if not _spliced(store, hook) or parts_of(hook).place in HOOKS:
        return None
    clean = _untouched(study, hook).batches[0].clean
    with torch.no_grad():
        logits = clean.untouched()
        again = clean.replaced(lambda x: x)
        other = clean.replaced(torch.zeros_like)
    if torch.equal(other, logits):
        return f"what is put at {hook} changes no logit: the model only shows activations there"
    if float((again - logits).abs().max()) > SAME * float(logits.abs().max()):
        return f"activations put back at {hook} as they were change the model's logits"
    return None


def _aligned(measured: Columns, document: Counts) -> Columns:
    """`measured` by its own `document` as columns over all of `document`, 0 where none is."""
    columns: Columns = {name: np.zeros(len(document), dtype=np.int64) for name in COUNTS}
    columns |= {f"{name}_sum": np.zeros(len(document)) for name in LOSSES}
    if measured:
        # a document without a target may have no token among the activations either
        some = measured["targets"] > 0
        place = np.searchsorted(document, measured["document"][some])
        for name in COUNTS:
            columns[name][place] = measured[name][some]
        for name in LOSSES:
            columns[f"{name}_sum"][place] = measured[name][some]
    return columns


@lru_cache(maxsize=1)
def _untouched(study: Evaluation, hook: str) -> Untouched:
    """The untouched passes that a process's cells on a hook share."""
    seen = ActivationStore(study.activations).seen()
    windows = Windows(study.activations / "windows", study.settings.fidelity_tokens, seen)
    return Untouched.of(subject_of(study, hook), windows, hook)


@lru_cache(maxsize=8)
def _baseline(study: Evaluation, hook: str) -> Columns:
    """Clean, zeroed and mean-ablated cross-entropy: the same for all cells on a hook, so done once.

    The mean is that of the training activations.
    """
    import pandas as pd

    mean_d = torch.from_numpy(JoinedStore(study.activations).mean(hook)).float()
    mean_d = mean_d.to(study.settings.device)
    cells = CellStore(study.store)
    # many hooks' names are longer than a file's may be
    key = f"{study.shared_by_cells}-{digest(hook) if is_joint(hook) else hook}"
    with cells.making(key) as folder:
        if folder is not None:
            measured = fidelity(
                _untouched(study, hook),
                {"zero": torch.zeros_like, "mean": lambda x: mean_d.expand_as(x)},
            )
            _frame(measured).to_parquet(folder / "baseline.parquet", index=False)
    frame = pd.read_parquet(cells.folder / key / "baseline.parquet")
    return {str(name): frame[name].to_numpy() for name in frame}


def _frame(measured: Spliced) -> Any:
    import pandas as pd

    counts = {
        "document": measured.document,
        "targets": measured.targets,
        "unseen_targets": measured.unseen_targets,
    }
    return pd.DataFrame(counts | measured.sums)
