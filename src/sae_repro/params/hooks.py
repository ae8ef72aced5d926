"""Names of the places at which a language model's activations are read.

A name is TransformerLens's: `blocks.1.hook_resid_post`, `blocks.1.attn.hook_z`, `ln_final.hook_out`
and so on. A number behind it chooses one head, `blocks.1.attn.hook_z.3`; without it heads are one
vector, one head after another. `blocks.0-3.…` and `blocks.0,2.…` stand for several layers, and in
the section `extract` `blocks.*.…` for all of them.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
"""Those of a block that every model has, as wide as its residual stream."""
UNTRAINED = "untrained/"
"""Before a hook's name: read from the subject's architecture with random weights."""
EMBEDDINGS = "embeddings/"
"""Before a hook's name: the same, but for the embeddings, which are the subject's."""

GIVEN = "activations"
"""The one hook of a study whose activations are files, of no model."""

_NUMBER = r"(?:0|[1-9][0-9]{0,3})"
_HOOK = re.compile(
    rf"(?:blocks\.(?P<layer>{_NUMBER})\.)?"
    r"(?P<place>(?!blocks\.)(?:[a-z][a-z0-9_]*\.)*hook_[a-z0-9_]+)"
    rf"(?:\.(?P<head>{_NUMBER}))?"
)
_SPAN = rf"{_NUMBER}(?:-{_NUMBER})?"
_SEVERAL = re.compile(rf"blocks\.(?P<layers>\*|{_SPAN}(?:,{_SPAN})*)\.(?P<rest>.+)")
_EMBEDDED = ("embed.", "pos_embed.", "hook_embed", "hook_pos_embed")
_BEHIND = ("ln_final.", "unembed.", "hook_unembed")  # all blocks

_STREAM = (
    *HOOKS, "hook_in", "hook_out", "attn.hook_in", "attn.hook_out", "attn.o.hook_out",
    "mlp.hook_in", "mlp.hook_out", "mlp.out.hook_out", "ln1.hook_in", "ln2.hook_in",
)  # fmt: skip
_NORMED = ("ln1.hook_out", "ln1.hook_normalized", "ln2.hook_out", "ln2.hook_normalized",
           "attn.q.hook_in", "attn.k.hook_in", "attn.v.hook_in", "mlp.in.hook_in")  # fmt: skip
_HEADS = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "attn.q.hook_out",
          "attn.k.hook_out", "attn.v.hook_out", "attn.o.hook_in")  # fmt: skip
_NEURONS = ("mlp.hook_pre", "mlp.hook_post", "mlp.in.hook_out", "mlp.out.hook_in")
_OF_MODEL = ("hook_embed", "embed.hook_out", "hook_pos_embed", "pos_embed.hook_out",
             "ln_final.hook_in", "ln_final.hook_normalized",
             "ln_final.hook_out", "unembed.hook_in")  # fmt: skip


@dataclass(frozen=True)
class Hook:
    """A hook's name in parts."""

    layer: int | None
    """Its block; None: it is in none."""
    place: str
    """Its name within the block, or the model."""
    head: int | None
    """The head that is read; None: all that is there."""

    @property
    def point(self) -> str:
        """The model's own name of it, without a head."""
        return self.place if self.layer is None else f"blocks.{self.layer}.{self.place}"


def parts_of(hook: str) -> Hook:
    """The parts of a hook's name, `untrained/` or `embeddings/` before it or not.

    ValueError where it is no such name.
    """
    if hook == GIVEN:
        return Hook(None, GIVEN, None)
    match = _HOOK.fullmatch(model_hook(hook))
    if match is None:
        raise ValueError(
            f"{hook!r} is not a hook; name it as TransformerLens does: blocks.<layer>.{HOOKS[0]}, "
            "blocks.<layer>.attn.hook_z (.<head> behind it for one head), "
            "blocks.<layer>.mlp.hook_post, ln_final.hook_out"
        )
    layer, head = match["layer"], match["head"]
    return Hook(
        None if layer is None else int(layer), match["place"], None if head is None else int(head)
    )


def layer_of(hook: str) -> int:
    """The block of a hook's name; ValueError where the name is none, or is not in a block."""
    layer = parts_of(hook).layer
    if layer is None:
        raise ValueError(f"{hook!r} is not a hook of a block")
    return layer


def blocks_ahead(hook: str, n_layers: int) -> int:
    """How many of a model's `n_layers` blocks decide nothing but what enters at `hook`."""
    name = parts_of(hook)
    if name.layer is None:
        return n_layers if name.place.startswith(_BEHIND) else 0
    return name.layer + (name.place in ("hook_resid_post", "hook_out"))


def blocks_to_run(hooks: Iterable[str]) -> int | None:
    """How many blocks must run before every one of `hooks` is reached; None: the whole model."""
    most = 1
    for hook in hooks:
        name = parts_of(hook)
        if name.layer is not None:
            most = max(most, name.layer + 1)
        elif not name.place.startswith(_EMBEDDED):
            return None
    return most


def in_stream(hook: str) -> bool:
    """Whether a vector at `hook` is one of the residual stream, which the final norm reads."""
    name = parts_of(hook)
    if name.layer is None:
        return name.place in ("embed.hook_out", "hook_embed", "ln_final.hook_in")
    return name.head is None and name.place in _STREAM


def gpt2_width(hook: str, *, d_model: int, n_heads: int) -> int | None:
    """D of a hook of a GPT-2 that is trained here; None where it has no such hook."""
    name = parts_of(hook)
    if name.layer is None:
        return d_model if name.place in _OF_MODEL and name.head is None else None
    if name.place in _HEADS:
        if name.head is None:
            return d_model
        return d_model // n_heads if name.head < n_heads else None
    if name.head is not None:
        return None
    if name.place in _NEURONS:
        return 4 * d_model
    return d_model if name.place in (*_STREAM, *_NORMED) else None


def gpt2_hooks(n_layers: int) -> Iterator[str]:
    """The hooks of a GPT-2 that is trained here."""
    for layer in range(n_layers):
        yield from (f"blocks.{layer}.{place}" for place in (*_STREAM, *_NORMED, *_HEADS, *_NEURONS))
    yield from _OF_MODEL


def of_several_layers(hook: str) -> bool:
    """Whether a name stands for hooks of several layers: `blocks.*.…`, `blocks.0-3.…`."""
    match = _SEVERAL.fullmatch(model_hook(hook))
    return match is not None and not match["layers"].isdecimal()


def each_layer(hook: str, n_layers: int | None = None) -> Iterator[str]:
    """The hooks that a name stands for, by layer; itself where it stands for no others.

    `blocks.*.…` too is itself where `n_layers` is not known. ValueError for `blocks.3-1.…`.
    """
    match = _SEVERAL.fullmatch(model_hook(hook))
    if match is None or not of_several_layers(hook) or (match["layers"] == "*" and not n_layers):
        yield hook
        return
    spans = f"0-{(n_layers or 1) - 1}" if match["layers"] == "*" else match["layers"]
    for span in spans.split(","):
        first, _, last = span.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"{hook}: {span} are no layers; the lower one comes first")
        for layer in range(int(first), int(last or first) + 1):
            yield f"{weights_of(hook)}blocks.{layer}.{match['rest']}"


def stands_for(pattern: str, hook: str) -> bool:
    """Whether `hook` is among those that `pattern` stands for."""
    if hook in each_layer(pattern):
        return True
    match, name = (_SEVERAL.fullmatch(model_hook(one)) for one in (pattern, hook))
    return bool(
        match
        and name
        and weights_of(pattern) == weights_of(hook)
        and match["layers"] == "*"
        and name["layers"].isdecimal()
        and match["rest"] == name["rest"]
    )


def model_hook(hook: str) -> str:
    """The model's own name of `hook`, without `untrained/` or `embeddings/`."""
    return hook.removeprefix(weights_of(hook))


def on_random_weights(hook: str) -> bool:
    """Whether `hook` is read from a model with random weights, embeddings apart or not."""
    return bool(weights_of(hook))


def weights_of(hook: str) -> str:
    """`UNTRAINED` or `EMBEDDINGS`, as `hook` begins; empty for the subject's own weights."""
    return next((prefix for prefix in (UNTRAINED, EMBEDDINGS) if hook.startswith(prefix)), "")
