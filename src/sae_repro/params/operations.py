"""The size of a training from params.yaml alone: trained parameters, operations of a step.

Operations are the multiplications and additions of the matrix products that the method calls for,
whatever kernel computes them; products of a vector, activations, Adam and AuxK, which depends on
how many latents are dead, are left out. Of N tokens, with D dimensions and K latents of which A a
token may be active:

    encoder, all latents                                2 N D K
    decoder, and the gradients of z, W_dec and W_enc    8 N D A
    a gated SAE's auxiliary reconstruction: its
    decoder and the gradient of its code                4 N D K
    and W_dec's, with gated_auxiliary: trained          2 N D K

A is k where the activation keeps k a token, and K where a penalty sets how many are active: how
many that will be, params.yaml doesn't say. Prefixes share one decode and add nothing. Of a
transcoder D counts its inputs in the encoder and in W_enc's gradient, 2 N D (K + A), and its
targets elsewhere; a skip connection adds 4 N D D_out.
"""

from sae_repro.params.cell import Cell


def trained_parameters(cell: Cell, d_in: int, d_out: int | None = None) -> int:
    """Entries of all tensors that training changes: W_enc, W_dec, b_dec, those per latent, W_skip.

    `d_out` is the width of a transcoder's targets.
    """
    k, d_out = cell.width(d_in), d_out or d_in
    per_latent = 1 + len(cell.activation_row.extra)  # b_enc, and thresholds or magnitudes
    encoder, decoder = (0 if cell.frozen == kept else k for kept in ("encoder", "decoder"))
    skip = d_in * d_out if cell.skip else 0
    return encoder * d_in + decoder * d_out + d_out + per_latent * k + skip


def step_operations(cell: Cell, d_in: int, batch_size: int, d_out: int | None = None) -> int:
    """Floating-point operations of a training step: see the head of this module."""
    k, d_out = cell.width(d_in), d_out or d_in
    active = k
    if cell.activation_row.l0_set_by == "k":
        assert cell.k is not None  # the schema sees to it
        active = min(cell.k, k)
    auxiliary = 0
    if cell.activation_row.gated:
        auxiliary = 6 * k if cell.gated_auxiliary == "trained" else 4 * k
    skip = 4 * d_in * d_out if cell.skip else 0
    return batch_size * (d_in * 2 * (k + active) + d_out * (6 * active + auxiliary) + skip)
