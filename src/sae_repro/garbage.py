"""Garbage collection less often than Python's default, which is made for small programs.

Loading torch, transformers and transformer_lens makes some hundred thousand objects that stay, and
the default looks through them again after every 700 more: docs/speed.md has what that takes.
"""

import gc

FIRST = 10_000  # new objects, less those that went, until the youngest are looked through
OLDER = 10, 10  # collections of one generation until the next is looked through, as by default


def collect_rarely() -> None:
    """For the rest of this process; only cycles of objects wait longer than before."""
    gc.set_threshold(FIRST, *OLDER)
