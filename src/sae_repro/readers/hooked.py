"""Activations at a hook as vectors, and put back as the model has them: heads are one vector."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sae_repro.errors import StudyError
from sae_repro.params import model_hook, parts_of
from sae_repro.params.hooks import HOOKS

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge


def point_of(hook: str) -> str:
    """The model's own name of `hook`, whichever weights and head it is of."""
    return parts_of(hook).point


def vectors(hook: str, value: Any) -> "Tensor":
    """What the model has at `hook`, [B, L, …], as [B, L, D]: all heads one after another, or one.

    ValueError where it is no vector for each token.
    """
    tensor: Tensor = value[0] if isinstance(value, tuple) else value
    head = parts_of(hook).head
    if head is None:
        return tensor if tensor.ndim == 3 else tensor.flatten(2)
    if tensor.ndim != 4:
        raise ValueError("it has no heads; name it without a number")
    if head >= tensor.shape[2]:
        raise ValueError(f"its heads are 0 … {tensor.shape[2] - 1}")
    return tensor[:, :, head]


def edited(hook: str, edit: Callable[["Tensor"], "Tensor"]) -> Callable[..., Any]:
    """A function for the model's hook that puts `edit` of its vectors [B, L, D] in their place."""
    head = parts_of(hook).head

    def put(value: Any, hook: Any = None) -> Any:
        tensor: Tensor = value[0] if isinstance(value, tuple) else value
        if head is None:
            new = edit(tensor if tensor.ndim == 3 else tensor.flatten(2)).reshape(tensor.shape)
        else:
            new = tensor.clone()
            new[:, :, head] = edit(tensor[:, :, head])
        return (new, *value[1:]) if isinstance(value, tuple) else new

    return put


def _usual(hook: str) -> bool:
    """Whether every model has it as wide as its residual stream."""
    name = parts_of(hook)
    return name.layer is not None and name.head is None and name.place in HOOKS


def hook_widths(bridge: "TransformerBridge", hooks: Iterable[str]) -> dict[str, int]:
    """D of each of `hooks` that the model has, by its name; one short pass where it is not known.

    StudyError for a hook that has no vector for each token.
    """
    import torch

    named = [model_hook(hook) for hook in hooks]
    widths = {h: int(bridge.cfg.d_model) for h in named if _usual(h)}
    other = [h for h in named if h not in widths and point_of(h) in bridge.hook_dict]
    if not other:
        return widths
    tokens = torch.zeros((2, 3), dtype=torch.int64, device=next(bridge.parameters()).device)
    with torch.inference_mode():
        cache: Any
        _, cache = bridge.run_with_cache(tokens, names_filter=[point_of(h) for h in other])
    problems = []
    for hook in other:
        if point_of(hook) not in cache:
            problems.append(f"{hook}: a run of this model never comes by it; choose another")
            continue
        value = cache[point_of(hook)]
        if isinstance(value, tuple):
            value = value[0]
        if not value.is_floating_point() or value.ndim < 3 or value.shape[:2] != tokens.shape:
            problems.append(
                f"{hook}: {list(value.shape)} for 2 rows of 3 tokens: no vector for each token; "
                "choose another"
            )
        else:
            try:
                widths[hook] = int(vectors(hook, value).shape[2])
            except ValueError as error:
                problems.append(f"{hook}: {error}")
    if problems:
        raise StudyError("\n".join(problems))
    return widths
