"""One batch through the subject: norms at the study's hooks, and what all of the text will take."""

import resource
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.extract.extraction import SPLITS, Inputs, extract
from sae_repro.extract.norms import squared_norms
from sae_repro.extract.resumption import States
from sae_repro.params import Extract, blocks_to_run, model_hook
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.joined import JoinedStore
from sae_repro.readers.shards import ActivationStore

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

NORM_LIMIT = float(Extract.model_fields["norm_limit"].default)
"""Times the median: a massive activation where `extract.norm_limit` is null."""
OTHER_TOKENS = 256
"""Tokens of the other splits that go along."""
INDEX_BYTES = 12
"""Of a token in the index: document, position, token."""


@dataclass(frozen=True)
class HookNorms:
    """Norms at a hook, of the training tokens of a batch."""

    hook: str
    median: float
    q999: float
    max: float
    beyond: float
    """Share of tokens beyond norm_limit, or `NORM_LIMIT` where it is null, times the median."""
    positions: dict[str, dict[str, float]]
    """By the position in a row, from 0: median and max."""


@dataclass(frozen=True)
class Extraction:
    """A batch, extracted as the stage `extract` does it, and what that tells of all of the text."""

    store: ActivationStore
    norms: tuple[HookNorms, ...]
    at: dict[str, float]
    """Share of tokens that norm_limit leaves out, by their position in a row."""
    tokens: int
    seconds: float
    memory: int
    """Largest memory of this process so far, bytes."""


def extraction(
    subject: "TransformerBridge",
    corpus: TokenDocuments,
    settings: Extract,
    *,
    seed: int,
    folder: Path,
) -> Extraction:
    """Extract one batch of training tokens, and a few of the other splits, into `folder`.

    StudyError where `extract` would refuse: activations that are not finite, or constant, or of
    which too many lie beyond norm_limit.
    """
    others = {f"n_{split}_tokens": OTHER_TOKENS for split in SPLITS if split != "train"}
    batch = settings.model_copy(
        update={
            "untrained_hooks": (),
            "embeddings_hooks": (),
            "pooling": "token",
            "buffer": None,
            "keep": "all",
            "n_tokens": settings.batch_size * (settings.context - 1),
            **others,
        }
    )
    start = time.perf_counter()
    with redirect_stdout(StringIO()):  # the table says what it says of norms
        extract(Inputs(subject, corpus, {}), batch, seed=seed, states=States(folder))
    seconds = time.perf_counter() - start
    store = JoinedStore(folder)
    manifest = store.manifest
    beyond, at = _beyond(store)
    return Extraction(
        store=store,
        norms=tuple(
            HookNorms(hook, beyond=beyond[hook], **entry["norms"])
            for hook, entry in manifest["hooks"].items()
        ),
        at=at,
        tokens=sum(manifest.get("left_out", {}).get("real_tokens", manifest["tokens"]).values()),
        seconds=seconds,
        memory=_peak_memory(),
    )


def _beyond(store: ActivationStore) -> tuple[dict[str, float], dict[str, float]]:
    """(share of tokens beyond the limit at each hook, share of tokens that are, by position).

    Without a norm_limit nothing tells positions: the second is empty.
    """
    found = store.manifest.get("left_out")
    if found is not None:
        tokens = sum(found["real_tokens"].values())
        return (
            {hook: n / tokens for hook, n in found["hooks"].items()},
            {place: n / tokens for place, n in found["positions"].items() if n},
        )
    shares = {}
    for hook in store.manifest["hooks"]:
        squared = squared_norms(store.activations(hook, "train").whole())
        bound = (NORM_LIMIT * store.median_norm(hook)) ** 2
        shares[hook] = float((squared > bound).mean())
    return shares, {}


def passes_of(settings: Extract, n_layers: int) -> float:
    """Forward passes of extraction, those of random weights among them, in the subject's own."""
    layers = [
        blocks_to_run(hooks) or n_layers
        for hooks in (settings.hooks, settings.untrained_hooks, settings.embeddings_hooks)
        if hooks
    ]
    return sum(layers) / layers[0]


def tokens_of(settings: Extract, splits: tuple[str, ...]) -> int:
    """Tokens of all splits together, at most."""
    limits = settings.model_dump(include={"n_tokens", *(f"n_{split}_tokens" for split in splits)})
    return sum(limits.values())


def stored_tokens(settings: Extract, splits: tuple[str, ...]) -> int:
    """Those of them that are on the disk at once: of a rolling buffer two rounds at most."""
    if settings.keep == "all" or settings.buffer is None:
        return tokens_of(settings, splits)
    train = min(settings.n_tokens, 2 * settings.buffer)
    return tokens_of(settings.model_copy(update={"n_tokens": train}), splits)


def shard_bytes(settings: Extract, tokens: int, d_in: Mapping[str, int]) -> int:
    """Bytes of the shards of all hooks, each `d_in` wide by its own name, for so many tokens."""
    widths = sum(d_in[model_hook(hook)] for hook in settings.all_hooks)
    return tokens * ({"float16": 2, "float32": 4}[settings.dtype] * widths + INDEX_BYTES)


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder."""
    return shutil.disk_usage(folder).free


def _peak_memory() -> int:
    peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)
