"""What stages leave on disk, as others read it: documents, windows, the subject, activations."""
