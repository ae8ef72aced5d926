"""A reproducibility suite for sparse autoencoders on language models.

Scripts and notebooks may import what `PUBLIC` lists, by module; it is documented in docs/api. All
else is internal and may move. Nothing is imported here, so that `import sae_repro` stays cheap.

    from sae_repro.autoencoders import load
    from sae_repro.latents import activations_of
"""

__all__ = ["PUBLIC", "__version__"]

__version__ = "0.1.0"

PUBLIC = {
    "sae_repro.autoencoders": ("SAE", "load", "save"),
    "sae_repro.errors": ("StudyError",),
    "sae_repro.latents": ("activations_of", "decoder_weights", "neighbours"),
    "sae_repro.params": ("Study", "load", "parse"),
    "sae_repro.readers.shards": ("ActivationStore",),
    "sae_repro.stage": ("StageContext", "stage"),
    "sae_repro.steering": ("Intervention", "steered"),
    "sae_repro.verify": ("Difference", "Verdict", "verify", "verify_recorded"),
}
"""The names that scripts may import, by module."""
