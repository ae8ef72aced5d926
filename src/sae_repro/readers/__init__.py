"""Readers of what stages leave on disk: documents, windows, the subject, activations."""
