"""The bridge, through which activations are read, held against transformers."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from sae_repro.checkpoint.configuration import shape_of
from sae_repro.errors import StudyError, did_you_mean
from sae_repro.hub import one_line
from sae_repro.params import parts_of
from sae_repro.params.hooks import HOOKS
from sae_repro.readers.hooked import point_of
from sae_repro.readers.subject import bridged, load_plain, vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

LIMIT = 1e-4
"""Largest difference, as a fraction of the largest magnitude of the tensor in question."""
LENGTHS = (24, 128)
"""Positions of the longest row: the least, and the most that two sliding windows may ask for."""
LOGITS = "logits"
OUTSIDE = ("embed", "ln_final")
"""Components outside of blocks whose edges are compared."""
NO_VECTORS = ("hook_pattern", "hook_attn_scores", "hook_scale", "hook_cos", "hook_sin")
"""Ends of names of hooks that have no vector for each token."""


@dataclass(frozen=True)
class Difference:
    """The largest difference of any place, relative to that place's largest magnitude."""

    place: str
    value: float


def load_compared(
    folder: Path, what: str, *, hooks: Iterable[str] = (), device: str = "cpu"
) -> tuple["TransformerBridge", Difference]:
    """(the model in `folder` with named hooks, its largest difference from transformers).

    Compared on one batch are the logits, the residual stream before and after the first, the middle
    and the last block, and `hooks`, against the same model run before the bridge took it, row by
    row. StudyError beyond `LIMIT`, where activations depend on later tokens or on the batch's other
    rows, where one of `hooks` is constant, or a weight is not finite. Memory: one model in fp32.
    """
    model = load_plain(folder, what, device=device)
    _check_finite(model, what)
    shape = shape_of(model.config, what)
    chosen = {0, shape.n_layers // 2, shape.n_layers - 1}
    hooks = list(dict.fromkeys(map(point_of, hooks)))
    chosen |= {layer for hook in hooks if 0 <= (layer := _layer_in(hook)) < shape.n_layers}
    layers = sorted(chosen)
    names = [f"blocks.{i}.hook_resid_{side}" for i in layers for side in ("pre", "post")]
    names += [hook for hook in hooks if hook not in names]
    rows = _rows(model, shape.positions)
    try:
        reference = _Reference(model, rows, layers, shape.n_layers)
        bridge = bridged(model, folder)
        found = _read(bridge, rows, names)
        worst = _compare(reference, bridge, found, rows, what)
    except StudyError:
        raise
    except Exception as error:  # of both libraries' code, by model
        raise StudyError(
            f"{what}: the model can't be run ({type(error).__name__}: {one_line(error)}); "
            "docs/models.md lists the models that can be studied"
        ) from None
    if not hooks_of(bridge):
        raise StudyError(
            f"{what}: TransformerLens has no hook in the blocks of {model.config.model_type}"
        )
    for hook in hooks:
        if hook in bridge.hook_dict and hook not in found:
            raise StudyError(
                f"{what}: {hook}: a run of this model never comes by it; choose another"
            )
        if hook in found and bool((found[hook] == found[hook][0, 0]).all()):
            raise StudyError(
                f"{what}: {hook} is the same vector at every token (0, most likely): an SAE has "
                "nothing to learn there; choose another hook"
            )
    return bridge, worst


def hooks_of(bridge: "TransformerBridge") -> list[str]:
    """The hooks of `bridge` that a study may name, those that every model has first."""
    names = [f"blocks.{i}.{hook}" for i in range(len(bridge.blocks)) for hook in HOOKS]
    usual = [name for name in names if name in bridge.hook_dict]
    others = (name for name in bridge.hook_dict if not name.endswith(NO_VECTORS))
    return list(dict.fromkeys([*usual, *others])) if usual else []


def hook_problems(hooks: Iterable[str], present: Collection[str]) -> Iterator[str]:
    """A line for each of `hooks` that is not `present`, as `hooks_of` lists them."""
    n_layers = 1 + max(map(_layer_in, present))
    for hook in dict.fromkeys(hooks):
        if _layer_in(hook) >= n_layers:
            yield f"{hook}: the model has layers 0 … {n_layers - 1}"
        elif point_of(hook) not in present:
            beside = [name for name in present if _layer_in(name) == _layer_in(hook)]
            near = did_you_mean(point_of(hook), beside)
            near = near or f"; it has {', '.join(beside[: len(HOOKS)])}"
            yield f"{hook}: the model has no such hook{near}"


def _layer_in(hook: str) -> int:
    """The block of a hook; -1 where it is in none, or has a name that no study can give."""
    try:
        layer = parts_of(hook).layer
    except ValueError:
        return -1
    return -1 if layer is None else layer


@dataclass(frozen=True)
class _Rows:
    tokens: "Tensor"
    """int64 [R, L]; row 1 is row 0 with other tokens in its second half."""
    lengths: tuple[int, ...]
    """Of each row, padding left out; of row 1 what it shares with row 0."""


def _rows(model: "PreTrainedModel", positions: int | None) -> _Rows:
    import torch

    text = model.config.get_text_config(decoder=True)
    try:
        window = text.sliding_window or getattr(text, "window_size", None)
    except Exception:  # missing, or different by layer
        window = None
    least, most = LENGTHS
    length = max(least, min(most, 2 * window + 2)) if isinstance(window, int) else least
    length = min(length, positions or length)
    rng = np.random.default_rng(0)
    vocabulary = vocabulary_of(model)
    tokens = rng.integers(vocabulary, size=(4, length))
    half = max(1, length // 2)
    lengths = (length, half, max(1, length // 3), max(1, length - 1))
    tokens[1, :half] = tokens[0, :half]
    tokens[2, lengths[2] :] = tokens[3, lengths[3] :] = vocabulary - 1  # as good as any padding
    return _Rows(torch.from_numpy(tokens).to(model.device), lengths)


class _Reference:
    """What transformers gives for each row on its own: logits, and tensors by their module."""

    def __init__(
        self, model: "PreTrainedModel", rows: _Rows, layers: list[int], n_layers: int
    ) -> None:
        import torch

        self.rows: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            for row in (0, 2, 3):
                tokens = rows.tokens[row : row + 1, : rows.lengths[row]]
                seen: dict[str, Tensor] = {}
                with ExitStack() as stack:
                    for module, name in _watched(model, layers, n_layers):
                        _watch(stack, module, name, seen)
                    output = model(tokens, use_cache=False, output_hidden_states=True)
                seen[LOGITS] = output.logits
                states = output.hidden_states or ()
                if len(states) == n_layers + 1:
                    seen |= {f"states.{i}": states[i] for i in layers}
                    # the last one has passed the final norm
                    seen |= {f"states.{i + 1}": states[i + 1] for i in layers if i + 1 < n_layers}
                self.rows.append(seen)


def _watched(
    model: "PreTrainedModel", layers: list[int], n_layers: int
) -> Iterator[tuple["Module", str]]:
    from torch.nn import ModuleList

    for name, blocks in model.named_modules():
        if isinstance(blocks, ModuleList) and len(blocks) == n_layers:
            for layer in layers:
                for part, module in blocks[layer].named_modules(prefix=f"{name}.{layer}"):
                    yield module, part
        elif name and "." in name and not any(part.isdecimal() for part in name.split(".")):
            yield blocks, name  # embeddings and the final norm


def _watch(stack: ExitStack, module: "Module", name: str, seen: "dict[str, Tensor]") -> None:
    def before(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        value = arguments[0] if arguments else named.get("hidden_states")
        if _is_tensor(value):
            seen[f"{name}.in"] = value.clone()  # a model may go on in place

    def after(_: Any, arguments: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        if _is_tensor(value):
            seen[f"{name}.out"] = value.clone()

    for handle in (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ):
        stack.callback(handle.remove)


def _is_tensor(value: Any) -> "TypeGuard[Tensor]":
    import torch

    return isinstance(value, torch.Tensor) and value.ndim == 3


def _read(bridge: "TransformerBridge", rows: _Rows, hooks: list[str]) -> "dict[str, Tensor]":
    import torch

    present = [name for name in hooks if name in bridge.hook_dict]
    with torch.inference_mode():
        # as `extract` reads them, except that it stops after its last block
        logits, cache = bridge.run_with_cache(rows.tokens, names_filter=present)
        return {LOGITS: logits, **{name: cache[name] for name in present if name in cache}}


def _check_finite(model: "PreTrainedModel", what: str) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise StudyError(
                f"{what}: {name} holds NaN or infinity; fetch the weights again, or train the "
                "model anew"
            )


def _places(bridge: "TransformerBridge", hook: str, n_layers: int) -> Iterator[str]:
    """Where the reference has what `hook` names; none where no module's edge is that place."""
    layer, point = _layer_in(hook), bridge.hook_dict[hook]
    mapping: Any = bridge.adapter.component_mapping
    if layer < 0:
        parts: Any = [(mapping[c].name, getattr(bridge, c)) for c in OUTSIDE if c in mapping]
    else:
        parts = _components(f"{mapping['blocks'].name}.{layer}", bridge.blocks[layer])
    for part, component in parts:
        for edge in ("in", "out"):
            if getattr(component, f"hook_{edge}", None) is point:
                yield f"{part}.{edge}"
    if hook.endswith("hook_resid_pre"):
        yield f"states.{layer}"
    if hook.endswith("hook_resid_post") and layer + 1 < n_layers:
        yield f"states.{layer + 1}"


def _components(stem: str, component: Any) -> Iterator[tuple[str, Any]]:
    """(the path that transformers knows it by, component) of one and of all below it."""
    yield stem, component
    for child in component.children():
        if getattr(child, "name", None):
            yield from _components(f"{stem}.{child.name}", child)


def _compare(
    reference: _Reference,
    bridge: "TransformerBridge",
    found: "dict[str, Tensor]",
    rows: _Rows,
    what: str,
) -> Difference:
    worst = Difference(LOGITS, 0.0)
    n_layers = len(bridge.blocks)
    for name, values in found.items():
        places = [LOGITS] if name == LOGITS else list(_places(bridge, name, n_layers))
        for place in places:
            if place not in reference.rows[0]:
                continue
            for row, length in enumerate(rows.lengths):
                expected = reference.rows[(0, 0, 1, 2)[row]][place][0, :length]
                scale = float(expected.abs().max()) or 1.0
                # transformers has heads as one vector
                given = values[row, :length].reshape(length, -1)
                if given.shape != expected.shape:
                    continue  # a part of what transformers has in one, such as q of q, k and v
                value = float((given - expected).abs().max()) / scale
                if not value <= LIMIT:  # NaN is no agreement either
                    raise StudyError(f"{what}: {_disagreement(name, row, value)}")
                worst = max(worst, Difference(name, value), key=lambda d: d.value)
    return worst


def _disagreement(place: str, row: int, value: float) -> str:
    named = f"{place} by {value:.2g} of its largest magnitude (at most {LIMIT:g} is accepted)"
    if row == 0:
        return (
            f"TransformerLens gives other numbers than transformers: {named}; the model can't be "
            "studied with these versions (docs/models.md lists those that can)"
        )
    if row == 1:
        return f"tokens that come later change {named}; only causal language models can be studied"
    return f"padding and other rows of a batch change {named}; the model can't be studied"
