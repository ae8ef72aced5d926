"""A reproducibility suite for sparse autoencoders on language models."""

__version__ = "0.1.0"
