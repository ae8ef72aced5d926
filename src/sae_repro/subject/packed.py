"""GPT-2 on packed rows: one token after another, without padding, for its training.

The model's own modules compute everything position by position; only attention knows rows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

LONGEST = 256  # positions: beyond that, keeping attention's weights takes too much memory
GROUP = 16  # rows that are padded to one length: their weights stay in the processor's cache


@dataclass(frozen=True)
class Group:
    """Some of the rows, which are padded to the longest where attention needs it."""

    tokens: slice
    """Theirs among all of the packed ones."""
    rows: int
    length: int
    place_n: Tensor
    """Of each of their tokens, its place among the rows · length padded ones."""

    def padded(self, x_n: Tensor) -> Tensor:
        """The group's part of x [N, W] with zeros behind each row, [rows · length, W]."""
        padded = x_n.new_zeros(self.rows * self.length, x_n.shape[1])
        return padded.index_copy(0, self.place_n, x_n[self.tokens])

    def by_head(self, x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
        """`parts` views [rows, heads, length, d] of x [rows · length, parts · heads · d]."""
        x = x.view(self.rows, self.length, parts, heads, -1)
        return x.permute(2, 0, 3, 1, 4).unbind()


@dataclass(frozen=True)
class Packed:
    """The tokens of all rows, row by row, [N]."""

    tokens_n: Tensor
    row_n: Tensor
    """Of each token, its row."""
    position_n: Tensor
    """Of each token, its place in the row."""
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, tokens: Tensor, length: npt.NDArray[np.int64]) -> "Packed":
        """The first `length` [B] tokens of each row of `tokens` [B, L]; sorted rows go faster."""
        ends = np.concatenate([[0], np.cumsum(length)])
        row = np.repeat(np.arange(len(length)), length)
        position = np.arange(ends[-1]) - ends[row]
        row_n, position_n = (torch.from_numpy(x).to(tokens.device) for x in (row, position))
        groups = []
        for first in range(0, len(length), GROUP):
            last = min(first + GROUP, len(length))
            begin, end, longest = int(ends[first]), int(ends[last]), int(length[first:last].max())
            place_n = (row_n[begin:end] - first) * longest + position_n[begin:end]
            groups.append(Group(slice(begin, end), last - first, longest, place_n))
        return cls(tokens[row_n, position_n].long(), row_n, position_n, tuple(groups))


def states(model: "GPT2LMHeadModel", packed: Packed) -> Tensor:
    """What the model's `lm_head` reads [N, D], as it is for each row alone."""
    core: Any = model.transformer
    h_nd = core.wte(packed.tokens_n) + core.wpe(packed.position_n)
    for block in core.h:
        qkv_n = block.attn.c_attn(block.ln_1(h_nd))
        o_nd = _attention(qkv_n, packed.groups, block.attn.num_heads)
        h_nd = h_nd + block.attn.c_proj(o_nd)
        h_nd = h_nd + block.mlp(block.ln_2(h_nd))
    result: Tensor = core.ln_f(h_nd)
    return result


def _attention(qkv_n: Tensor, groups: tuple[Group, ...], heads: int) -> Tensor:
    """Causal self-attention within each row, from [N, 3 D] to [N, D]."""
    if qkv_n.device.type == "cpu" and max(group.length for group in groups) <= LONGEST:
        result: Tensor = _Attention.apply(qkv_n, groups, heads)
        return result
    outputs = []
    for group in groups:
        q, k, v = group.by_head(group.padded(qkv_n), 3, heads)
        o_bhld = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        outputs.append(o_bhld.transpose(1, 2).flatten(2).flatten(0, 1)[group.place_n])
    return torch.cat(outputs)


class _Attention(torch.autograd.Function):
    """softmax(q kᵀ/√d + causal mask) v by numpy, which takes heads where they lie, uncopied."""

    @staticmethod
    def forward(ctx: Any, qkv_n: Tensor, groups: tuple[Group, ...], heads: int) -> Tensor:
        d_model = qkv_n.shape[1] // 3
        out_nd = qkv_n.new_empty(len(qkv_n), d_model)
        kept = []
        for group in groups:
            qkv = group.padded(qkv_n)
            qkv[:, :d_model] *= (d_model // heads) ** -0.5
            q, k, v = group.by_head(qkv, 3, heads)
            scores = qkv.new_empty(group.rows, heads, group.length, group.length)
            _product(q, k.transpose(2, 3), scores)
            scores += torch.full_like(scores[0, 0], -torch.inf).triu(1)
            p_bhll = scores.softmax(-1)
            out = qkv.new_empty(len(qkv), d_model)
            _product(p_bhll, v, *group.by_head(out, 1, heads))
            torch.index_select(out, 0, group.place_n, out=out_nd[group.tokens])
            kept += [qkv, p_bhll]
        ctx.save_for_backward(*kept)
        ctx.groups, ctx.heads = groups, heads
        return out_nd

    @staticmethod
    def backward(ctx: Any, grad_nd: Tensor) -> tuple[Tensor, None, None]:
        heads, d_model = ctx.heads, grad_nd.shape[1]
        grads_n = grad_nd.new_empty(len(grad_nd), 3 * d_model)
        kept = iter(ctx.saved_tensors)
        for group, qkv, p_bhll in zip(ctx.groups, kept, kept, strict=True):
            q, k, v = group.by_head(qkv, 3, heads)
            (to_o,) = group.by_head(group.padded(grad_nd), 1, heads)
            grads = torch.empty_like(qkv)
            to_q, to_k, to_v = group.by_head(grads, 3, heads)
            _product(p_bhll.transpose(2, 3), to_o, to_v)
            to_p = torch.empty_like(p_bhll)
            _product(to_o, v.transpose(2, 3), to_p)
            to_scores = torch._softmax_backward_data(to_p, p_bhll, -1, to_p.dtype)
            _product(to_scores, k, to_q)
            _product(to_scores.transpose(2, 3), q, to_k)  # q is scaled already
            grads[:, :d_model] *= (d_model // heads) ** -0.5
            torch.index_select(grads, 0, group.place_n, out=grads_n[group.tokens])
        return grads_n, None, None


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    np.matmul(a.numpy(), b.numpy(), out=out.numpy())
