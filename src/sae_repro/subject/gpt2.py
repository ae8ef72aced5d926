"""A tiny GPT-2, trained on training documents only."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sae_repro.numerics.random import generator
from sae_repro.params import Training
from sae_repro.progress import bar
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.windows import windows
from sae_repro.subject.packed import Packed, states

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BETAS = (0.9, 0.99)
# GPT-2's own .02 suits wide models: at this width, copying names in context was not learnt
INITIALIZER_RANGE = 0.1
PIECE = 1024  # positions whose logits are in memory at once


def train_subject(
    corpus: TokenDocuments, settings: Training, *, seed: int
) -> tuple["GPT2LMHeadModel", dict[str, Any]]:
    """The trained model, and facts for subject.json: loss, rows, parameters.

    Rows start at BOS and hold one document (or the next part of a long one); nothing is computed of
    their padding. The rows' order and the initial weights come from named generators. On the CPU,
    `settings.threads` threads share a batch's rows: torch itself is to use one (see `prepare`).
    """
    tokenizer = corpus.tokenizer()
    rows, lengths = _rows(corpus, settings.context)
    model = _new_model(settings, len(tokenizer), tokenizer.bos_token_id, seed)
    torch.nn.Module.to(model, settings.device)
    model.train()
    groups = _parameter_groups(model, settings)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=BETAS, fused=True)
    order = _batches(len(rows), settings, seed)
    recent: list[torch.Tensor] = []
    threads = settings.threads if model.device.type == "cpu" else 1
    with (
        bar("subject", unit="step", total=settings.steps) as progress,
        ThreadPoolExecutor(threads) as pool,
    ):
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * schedule(step, settings)
            batch = next(order)
            parts = _parts(rows[batch], lengths[batch], threads)
            loss = _differentiate(model, parts, pool)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent = [*recent[-49:], loss]
            if step % 50 == 49:
                mean = torch.stack(recent).mean().item()
                progress.set_postfix(loss=f"{mean:.3f}", refresh=False)
            progress.update()
    model.eval()
    return model, {
        "training_loss": torch.stack(recent).mean().item(),
        "training_rows": len(rows),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def schedule(step: int, settings: Training) -> float:
    """Fraction of the peak learning rate: linear warm-up, then half a cosine down to a tenth."""
    warmup = max(1, round(settings.lr_warmup * settings.steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, settings.steps - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


def _new_model(settings: Training, vocabulary: int, bos: int, seed: int) -> "GPT2LMHeadModel":
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=settings.context,
        n_embd=settings.d_model,
        n_layer=settings.n_layers,
        n_head=settings.n_heads,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=bos,
        eos_token_id=bos,
    )
    # transformers initialises from torch's global generator: give it a seed, and put it back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "subject", "weights").integers(2**63)))
        return GPT2LMHeadModel(config)


def _parameter_groups(model: torch.nn.Module, settings: Training) -> list[dict[str, object]]:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _rows(corpus: TokenDocuments, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All training rows: tokens [n, context] int32, and each one's length, BOS included."""
    tokenizer = corpus.tokenizer()
    parts = [
        (w.tokens.astype(np.int32), w.length.astype(np.int64))
        for w in windows(
            corpus,
            corpus.split("train"),
            context=context,
            bos=tokenizer.bos_token_id,
            special=(),
            pad=tokenizer.pad_token_id,
            batch_size=4096,
        )
    ]
    tokens, lengths = zip(*parts, strict=True)
    return torch.from_numpy(np.concatenate(tokens)), torch.from_numpy(np.concatenate(lengths))


def _batches(rows: int, settings: Training, seed: int) -> Iterator[torch.Tensor]:
    """Row numbers of one step after another, every row once per pass."""
    epoch = 0
    while True:
        order = torch.from_numpy(generator(seed, "subject", "order", epoch).permutation(rows))
        size = min(settings.batch_size, rows)
        for start in range(0, rows - size + 1, size):
            yield order[start : start + size]
        epoch += 1


def _parts(
    tokens: torch.Tensor, length: torch.Tensor, number: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of a batch in at most `number` parts of equal work, each from short to long."""
    order = torch.argsort(length, stable=True)
    chosen = [order[first::number] for first in range(min(number, len(order)))]
    return [(tokens[rows], length[rows]) for rows in chosen]


def _differentiate(
    model: "GPT2LMHeadModel",
    parts: Sequence[tuple[torch.Tensor, torch.Tensor]],
    pool: Executor,
) -> torch.Tensor:
    """Set every parameter's gradient of the batch's mean loss, which is returned.

    Each part has a thread of its own, and parts are added up in their order.
    """
    parameters = list(model.parameters())
    targets = sum(int((length - 1).sum()) for _, length in parts)

    def gradients(part: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        loss = total_loss(model, *part) / targets
        return loss.detach(), *torch.autograd.grad(loss, parameters)

    (loss, *totals), *others = pool.map(gradients, parts)
    for loss_of_part, *terms in others:
        loss = loss + loss_of_part
        torch._foreach_add_(totals, terms)
    for parameter, gradient in zip(parameters, totals, strict=True):
        parameter.grad = gradient
    return loss


def total_loss(
    model: "GPT2LMHeadModel", tokens: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    """The sum of the next token's cross-entropy over the positions that have one.

    `tokens` [B, L]: the first `length` [B] of each row are real.
    """
    inputs = Packed.of(tokens.to(model.device), (length - 1).numpy())
    targets = tokens.to(model.device)[inputs.row_n, inputs.position_n + 1].long()
    h_nd = states(model, inputs)
    losses = [
        torch.nn.functional.cross_entropy(model.lm_head(h), target, reduction="sum")
        for h, target in zip(h_nd.split(PIECE), targets.split(PIECE), strict=True)
    ]
    return torch.stack(losses).sum()
