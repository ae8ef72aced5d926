"""Choices of a cell that a training of so many steps never comes to: no error, but no secret."""

from collections.abc import Iterator

from sae_repro.params import Cell, Train


def unreached(cell: Cell, settings: Train, steps: int, d_sae: int) -> Iterator[str]:
    """A line for each choice without effect in `steps` steps on K = `d_sae` latents."""
    last = int(cell.resample_until * steps)
    if cell.resamples and cell.resample_every > last:
        yield (
            f"never resampled: resample_every {cell.resample_every:,}, the last one is due by step "
            f"{last:,} of {steps:,}"
        )
    # a step sees what was silent before it
    seen = (steps - 1) * settings.batch_size
    if cell.revival_row.auxiliary and cell.dead_tokens > seen:
        yield f"auxk never acted: dead_tokens {cell.dead_tokens:,}, training has {seen:,}"
    if cell.steered and int(cell.lambda_warmup * steps) >= steps:
        yield f"λ never steered: lambda_warmup takes all {steps:,} steps"
    chosen = cell.identity()
    for name in ("lr_warmup", "lr_decay", "lambda_warmup"):
        if 0 < chosen.get(name, 0) * steps <= 1:
            yield f"no {name}: {chosen[name]:g} of {steps:,} steps is no more than one"
    if cell.prefixes != "none" and d_sae == 1:
        yield "no prefixes: one latent has none"
