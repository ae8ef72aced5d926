"""A tiny GPT-2, trained on training documents only."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sae_repro.numerics.random import generator
from sae_repro.params import Training
from sae_repro.progress import bar
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.windows import windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BETAS = (0.9, 0.99)
# GPT-2's own .02 suits wide models: at this width, copying names in context was not learnt
INITIALIZER_RANGE = 0.1
IGNORED = -100  # the label that cross-entropy leaves out


def train_subject(
    corpus: TokenDocuments, settings: Training, *, seed: int
) -> tuple["GPT2LMHeadModel", dict[str, Any]]:
    """The trained model, and facts for subject.json: loss, rows, parameters.

    Rows start at BOS and hold one document (or the next part of a long one); padding is left out
    of the loss by length. The rows' order and the initial weights come from named generators.
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
    with bar("subject", unit="step", total=settings.steps) as progress:
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * schedule(step, settings)
            batch = next(order)
            loss = _loss(model, rows[batch], lengths[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent = [*recent[-49:], loss.detach()]
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


def _loss(model: "GPT2LMHeadModel", tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token over the positions that have one."""
    tokens = tokens[:, : int(length.max())].to(model.device, torch.int64)
    length = length.to(model.device)
    positions = torch.arange(tokens.shape[1], device=model.device)
    targets = tokens.masked_fill(positions >= length[:, None], IGNORED)[:, 1:]
    logits = model(tokens[:, :-1]).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED
    )
