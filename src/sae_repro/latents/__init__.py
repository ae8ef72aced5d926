"""Latents of a study's SAEs: single ones, and those of any text.

from sae_repro.autoencoders import load
from sae_repro.latents import activations_of, neighbours

sae = load("artifacts/train/topk-x8-k16/seed-0")
tokens, x_td = activations_of("the cat sat", hook="blocks.1.hook_resid_post")
z_tk = sae.encode(x_td)
neighbours(sae, int(z_tk[-1].argmax()))
"""

from sae_repro.autoencoders.atoms import decoder_weights, neighbours
from sae_repro.latents.reading import activations_of

__all__ = ["activations_of", "decoder_weights", "neighbours"]
