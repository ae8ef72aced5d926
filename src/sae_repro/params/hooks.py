"""Names of the places at which a language model's activations are read."""

import re

HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
UNTRAINED = "untrained/"
"""Before a hook's name: read from the subject's architecture with random weights."""
EMBEDDINGS = "embeddings/"
"""Before a hook's name: the same, but for the embeddings, which are the subject's."""

_HOOK = re.compile(rf"blocks\.(0|[1-9][0-9]{{0,3}})\.({'|'.join(HOOKS)})")


def layer_of(hook: str) -> int:
    """The block of a hook's name, `untrained/` or `embeddings/` before it or not.

    ValueError where the name is not one of `HOOKS` in a block.
    """
    match = _HOOK.fullmatch(model_hook(hook))
    if match is None:
        allowed = ", ".join(f"blocks.<layer>.{name}" for name in HOOKS)
        raise ValueError(f"{hook!r} is not a hook; allowed: {allowed}")
    return int(match[1])


def model_hook(hook: str) -> str:
    """The model's own name of `hook`, without `untrained/` or `embeddings/`."""
    return hook.removeprefix(weights_of(hook))


def on_random_weights(hook: str) -> bool:
    """Whether `hook` is read from a model with random weights, embeddings apart or not."""
    return bool(weights_of(hook))


def weights_of(hook: str) -> str:
    """`UNTRAINED` or `EMBEDDINGS`, as `hook` begins; empty for the subject's own weights."""
    return next((prefix for prefix in (UNTRAINED, EMBEDDINGS) if hook.startswith(prefix)), "")
