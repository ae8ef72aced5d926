"""A Hugging Face folder before its model is loaded: its files, its configuration, its tensors.

Nothing here reads weights: files, headers and config.json decide.
"""
