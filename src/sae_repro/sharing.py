"""Exchange of finished cells with the store that a team shares, before and after a grid runs."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sae_repro.contents import Changed, examine
from sae_repro.files import replacing_folder
from sae_repro.progress import say
from sae_repro.sharedstore import RefusedError, SharedStore, UnreachableError, shared_store


def written(pieces: Sequence[tuple[Any, int]]) -> list[Path]:
    """The entries of the cell store that jobs leave, of those that say it; of (job, its units).

    Checkpoints and costs are named by the same keys, and no results: they stay here.
    """
    paths = [path for work, _ in pieces if hasattr(work, "writes") for path in work.writes()]
    return [path for path in paths if path.parent.name == "cells"]


@contextmanager
def sharing(folders: Sequence[Path], what: str) -> Iterator[None]:
    """Bring those of `folders` that the shared store has; offer what the block made of them.

    Folders are named by their keys. One that is finished here is left as it is, one that another
    process is making, to that process. An entry that is not as it was sealed is refused with a
    line. Nothing without a shared store, or with SAE_REPRO_NO_STORE=1.
    """
    bypassed = os.environ.get("SAE_REPRO_NO_STORE", "") not in ("", "0")
    store = None if bypassed else shared_store()
    if store is None:
        yield
        return
    missing = [folder for folder in folders if not _is_whole(folder)]
    fetched = [folder for folder in missing if _fetched(store, folder)]
    if fetched:
        say(f"{what}: {len(fetched)} of {len(missing)} from the shared store, as made before")
    try:
        yield
    finally:
        for folder in missing:
            if folder not in fetched and _is_whole(folder):
                with suppress(UnreachableError):
                    store.offer(folder.name, folder)


def _is_whole(folder: Path) -> bool:
    try:
        examine(folder)
    except Changed:
        return False
    return True


def _fetched(store: SharedStore, folder: Path) -> bool:
    """Whether the entry of `folder` came, each of its files as it was sealed."""
    key = folder.name
    try:
        if not store.has(key):
            return False
        folder.parent.mkdir(parents=True, exist_ok=True)
        # the lock of the cell store: one writer per key
        with (
            FileLock(folder.with_name(f"{key}.lock")).acquire(timeout=0),
            replacing_folder(folder) as unpacked,
        ):
            store.fetch(key, unpacked)
            examine(unpacked)
    except (UnreachableError, Timeout):
        return False
    except (RefusedError, Changed) as fault:
        reason = f"{fault.path.name}: {fault.what}" if isinstance(fault, Changed) else fault
        print(f"{store.address}: {key}: {reason}; made here", file=sys.stderr)
        return False
    return True
