"""Names of hooks, and activations of heads, neurons and other places put back where they were."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.evaluate.resumed import Resumable
from sae_repro.params.hooks import (
    blocks_to_run,
    each_layer,
    gpt2_hooks,
    gpt2_width,
    of_several_layers,
    parts_of,
    stands_for,
)
from sae_repro.readers.agreement import hooks_of
from sae_repro.readers.hooked import hook_widths, point_of, vectors

TOKENS = torch.tensor([[1, 5, 3, 4], [1, 2, 2, 6]])


def test_the_hooks_of_a_subject_trained_here_are_known_with_their_widths(subject: Any) -> None:
    cfg = subject.cfg
    named = [*gpt2_hooks(cfg.n_layers), "blocks.0.attn.hook_z.0", "blocks.1.attn.hook_k.1"]
    assert {point_of(hook) for hook in named} <= set(hooks_of(subject))
    widths = hook_widths(subject, named)
    assert widths == {
        hook: gpt2_width(hook, d_model=cfg.d_model, n_heads=cfg.n_heads) for hook in named
    }


@pytest.mark.parametrize(
    "hook", [*gpt2_hooks(1), "blocks.0.attn.hook_z.1", "blocks.1.attn.hook_q.0"]
)
def test_a_replacement_resumes_to_what_a_whole_pass_gives(subject: Any, hook: str) -> None:
    def shifted(x: torch.Tensor) -> torch.Tensor:
        return x + torch.arange(x.shape[-1]) / 7

    def by_hand(value: torch.Tensor, hook: Any) -> torch.Tensor:
        head, new = parts_of(name).head, value.clone()
        part = new if head is None else new[:, :, head]
        flat = part.reshape(*part.shape[:2], -1)
        part.copy_(shifted(flat).reshape(part.shape))
        return new

    name = hook
    with torch.no_grad():
        resumable = Resumable.of(subject, TOKENS, hook)
        whole = subject.run_with_hooks(TOKENS, fwd_hooks=[(point_of(hook), by_hand)])
        assert torch.equal(resumable.replaced(shifted), whole)
        assert not torch.equal(whole, resumable.untouched())


@pytest.mark.parametrize("hook", gpt2_hooks(1))
def test_no_more_blocks_run_than_the_hook_needs(subject: Any, hook: str) -> None:
    found = []
    with (
        torch.no_grad(),
        subject.hooks(
            fwd_hooks=[(point_of(hook), lambda value, hook: found.append(vectors(name, value)))]
        ),
    ):
        name = hook
        subject(TOKENS, stop_at_layer=blocks_to_run([hook]))
        subject(TOKENS)
    assert torch.equal(*found)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 12))
def test_spans_of_layers_are_the_layers_they_list(layers: list[int], n_layers: int) -> None:
    pattern = f"blocks.{','.join(map(str, layers))}.hook_resid_post"
    assert list(each_layer(pattern)) == [f"blocks.{i}.hook_resid_post" for i in layers]
    assert of_several_layers(pattern) == (len(layers) > 1)
    low, high = min(layers), max(layers)
    spanned = [f"untrained/blocks.{i}.attn.hook_z.2" for i in range(low, high + 1)]
    assert list(each_layer(f"untrained/blocks.{low}-{high}.attn.hook_z.2")) == spanned
    every = list(each_layer("blocks.*.ln1.hook_out", n_layers))
    assert every == [f"blocks.{i}.ln1.hook_out" for i in range(n_layers)]
    assert all(stands_for("blocks.*.ln1.hook_out", hook) for hook in every)
    assert not stands_for("blocks.*.ln1.hook_out", "blocks.0.ln2.hook_out")
    assert not stands_for("blocks.*.ln1.hook_out", "untrained/blocks.0.ln1.hook_out")
