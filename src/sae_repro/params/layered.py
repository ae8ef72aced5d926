"""Cells at several layers at once: the cells, or the hooks of one cell, that their names stand for.

hook: blocks.0-2.hook_resid_post                                a cell at each layer
hook: blocks.0-2.ln2.hook_out, target_hook: blocks.0-2.hook_mlp_out   a transcoder at each
hooks: [blocks.0-2.hook_resid_post]                             one crosscoder of three hooks
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_repro.params.hooks import each_layer, layer_of, of_several_layers

HOOK_KEYS = ("hook", "target_hook", "hooks")
"""The keys of a cell that name hooks."""


def several(named: Any) -> bool:
    """Whether a key's value, or a hook in it, stands for several layers."""
    if isinstance(named, list | tuple):
        return any(map(several, named))
    return isinstance(named, str) and of_several_layers(named)


def of_layers(name: str, choices: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """The cells that the cell `name` stands for, by name: their hooks, from `HOOK_KEYS` by value.

    None where its hooks are what they say. ValueError, `name.hook = …`, where it does not say which
    layers, or hook and target_hook can't be paired.
    """
    hook, target, hooks = (choices[key] for key in HOOK_KEYS)
    if several(hooks):
        return {name: {"hooks": _side_by_side(name, hooks)}}
    if not several(hook):
        if several(target):
            raise ValueError(
                f"{name}.target_hook = {target}: several layers, and hook has one; write the "
                "layers in both, which makes pairs of them, or name one target"
            )
        return None
    layers = _layers(f"{name}.hook", hook)
    copies: dict[str, dict[str, Any]] = {
        f"{name}-layer{layer_of(one)}": {"hook": one} for one in layers
    }
    if several(target):
        targets = _layers(f"{name}.target_hook", target)
        if len(targets) != len(layers):
            raise ValueError(
                f"{name}.target_hook = {target}: {len(targets)} layers, and hook = {hook} has "
                f"{len(layers)}; each layer of one is paired with one of the other"
            )
        for copy, one in zip(copies.values(), targets, strict=True):
            copy["target_hook"] = one
    return copies


def _side_by_side(name: str, hooks: Sequence[Any]) -> list[Any]:
    """`hooks` with each that stands for several layers replaced by the hooks of these."""
    found: list[Any] = []
    for hook in hooks:
        found += _layers(f"{name}.hooks", hook) if several(hook) else [hook]
    return found


def _layers(key: str, hook: str) -> list[str]:
    """The hook at each of its layers; ValueError where it doesn't say which they are."""
    layers = list(each_layer(hook))
    if layers == [hook]:
        raise ValueError(
            f"{key} = {hook}: a cell says which layers it is repeated at; write blocks.0-5.… or "
            "blocks.0,2.…"
        )
    return layers
