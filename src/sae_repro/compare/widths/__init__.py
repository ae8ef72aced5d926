"""Comparison across widths: what a wider SAE adds, splits and keeps of a narrower one's latents."""
