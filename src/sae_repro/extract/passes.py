"""Forward passes over windows of tokens, masking and pooling: rows of activations."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sae_repro.extract.norm_limit import NormWatch
from sae_repro.extract.norms import Moments
from sae_repro.params import EMBEDDINGS, UNTRAINED, Extract, blocks_to_run
from sae_repro.progress import bar
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.hooked import point_of, vectors
from sae_repro.readers.row_start import row_start
from sae_repro.readers.windows import Windows, windows

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

Read = Callable[["Tensor"], "dict[str, Tensor]"]
"""From tokens [B, L] to their activations [B, L, D] by hook."""
Models = tuple["TransformerBridge", "TransformerBridge | None", "TransformerBridge | None"]
"""The subject, the model with random weights, which gives `untrained/<hook>`, and that with the
subject's embeddings, which gives `embeddings/<hook>`."""


@dataclass(frozen=True)
class Batch:
    """Activations by hook [n, D] fp32, their index [n, 3], and their moments, where known."""

    rows: dict[str, npt.NDArray[Any]]
    index: npt.NDArray[np.int32]
    moments: dict[str, Moments]


@contextmanager
def _reading(of: Models, settings: Extract) -> Iterator[Read]:
    """Reads every hook of `settings` in one forward pass per model, up to its last hook.

    The models are hooked once for all passes: `run_with_cache` hooks them anew for each.
    """
    import torch

    subject, untrained, embeddings = of
    models = [(subject, "", settings.hooks)]
    if untrained is not None:
        models.append((untrained, UNTRAINED, settings.untrained_hooks))
    if embeddings is not None:
        models.append((embeddings, EMBEDDINGS, settings.embeddings_hooks))
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def see(value: Any, hook: Any) -> None:
            found[name] = vectors(name, value)

        return see

    def read(tokens: "Tensor") -> "dict[str, Tensor]":
        found.clear()
        with torch.inference_mode():
            for model, _, hooks in models:
                model(tokens, stop_at_layer=blocks_to_run(hooks))
        return dict(found)

    with ExitStack() as hooked:
        for model, prefix, hooks in models:
            kept = [(point_of(hook), keep(prefix + hook)) for hook in hooks]
            hooked.enter_context(model.hooks(fwd_hooks=kept))
        yield read


def start_and_special(
    corpus: TokenDocuments, settings: Extract
) -> tuple[int | None, set[int], int]:
    """(first token of rows or None, ids masked inside documents, padding) of the tokenizer."""
    tokenizer = corpus.tokenizer()
    start = row_start(tokenizer, settings.prepend_bos)
    ids = (start, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    special = [i for i in ids if i is not None]
    # padded positions are masked by length, so that any id serves
    return start, set(special), special[-1] if special else 0


def passes(
    models: Models,
    corpus: TokenDocuments,
    split: str,
    settings: Extract,
    limit: int,
    watch: NormWatch | None = None,
    record: Callable[[Windows], None] | None = None,
    done: int = 0,
) -> Iterator[Batch]:
    """Per forward pass, its real tokens, without those that `watch` leaves out.

    `record` takes the rows with the mask of what is kept.
    The first `done` passes are taken for done.
    """
    import torch

    documents = corpus.split(split)
    expected = min(limit, int(corpus.documents["length"].to_numpy()[documents].sum()))
    batches = windows_within(corpus, split, settings, limit, settings.batch_size)
    before = sum(int(batch.mask.sum()) for batch in islice(batches, done))
    with (
        bar(f"extract {split}", unit="tok", total=expected, initial=before) as progress,
        _reading(models, settings) as read,
    ):
        for batch in batches:
            width = int(batch.length.max())
            mask = batch.mask[:, :width]
            kept_n = torch.from_numpy(np.flatnonzero(mask)).to(settings.device)
            x_bld = read(torch.from_numpy(batch.tokens[:, :width]).to(settings.device))
            rows = {
                hook: x.flatten(0, 1).index_select(0, kept_n).float().cpu().numpy()
                for hook, x in x_bld.items()
            }
            row, column = np.nonzero(mask)
            progress.update(len(row))
            moments: dict[str, Moments] = {}
            if watch is not None:
                first = (
                    {hook: x[:, 0].float().cpu().numpy() for hook, x in x_bld.items()}
                    if split == "train"
                    else {}
                )
                kept, moments = watch.keeps(split, rows, first, column)
                if not kept.all():
                    moments = {}  # of all, and not of those that are kept
                    rows = {hook: values[kept] for hook, values in rows.items()}
                    mask[row[~kept], column[~kept]] = False  # and in batch.mask
                    row, column = row[kept], column[kept]
            if record is not None:
                record(batch.masked(batch.mask))
            index = _index(batch, row, column, settings.prepend_bos is not False)
            yield Batch(rows, index, moments)


def windows_within(
    corpus: TokenDocuments, split: str, settings: Extract, limit: int, batch_size: int
) -> Iterator[Windows]:
    """The windows of `split` in batches, up to the one that holds its `limit`-th real token.

    Those beyond it are masked out: which tokens are kept does not depend on the batches.
    """
    bos, special, pad = start_and_special(corpus, settings)
    kept = 0
    for batch in windows(
        corpus,
        corpus.split(split),
        context=settings.context,
        bos=bos,
        special=special,
        pad=pad,
        batch_size=batch_size,
    ):
        order = batch.mask.cumsum().reshape(batch.mask.shape)
        batch = batch.masked(batch.mask & (order <= limit - kept))
        kept += int(batch.mask.sum())
        if len(batch.mask):
            yield batch
        if kept >= limit:
            return


def _index(
    batch: Windows, row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], has_bos: bool
) -> npt.NDArray[np.int32]:
    """(document, position in it, token id) of positions of the batch, [n, 3]."""
    position = batch.offset[row] + column - has_bos
    return np.stack([batch.document[row], position, batch.tokens[row, column]], axis=1).astype(
        np.int32
    )
