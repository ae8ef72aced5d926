"""The pause of a training between two rounds; a module that loads no torch, as the stage does."""


class Paused(Exception):  # noqa: N818 - no error
    """A training has taken the steps that it was to take; it goes on from its checkpoint."""
