"""The command `store`: the finished cells here and in the store that a team shares."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_repro.cli.output import echo
from sae_repro.errors import StudyError

if TYPE_CHECKING:
    from sae_repro.sharedstore import Entry, SharedStore


def store(
    study: Annotated[Path, typer.Argument(help="Folder that holds params.yaml.")] = Path(),
    verify: Annotated[
        bool, typer.Option("--verify", help="Read each shared entry, and check its hashes.")
    ] = False,
    offer: Annotated[
        bool, typer.Option("--offer", help="Copy what is finished here to the shared store.")
    ] = False,
    prune: Annotated[
        int | None,
        typer.Option(min=0, help="Delete shared entries older than this many days."),
    ] = None,
) -> None:
    """Show the store of finished cells, local and shared.

    The shared store is the one that SAE_REPRO_STORE names. Exit code 1 where --verify finds a
    damaged entry, which the next run that needs it makes again.

    Examples:

    sae-repro store

    SAE_REPRO_STORE=/mnt/team sae-repro store --offer --verify
    """
    from sae_repro.sharedstore import UnreachableError

    try:
        whole = True
        for line, good in lines_of(study, verify=verify, offer=offer, prune=prune):
            echo(line)
            whole = whole and good
    except UnreachableError:  # the store has said why
        raise StudyError("the shared store can't be reached, see above") from None
    raise typer.Exit(0 if whole else 1)


def lines_of(
    study: Path, *, verify: bool, offer: bool, prune: int | None
) -> Iterator[tuple[str, bool]]:
    """(line, whether what it says is good); changes come before what is then shown.

    StudyError where a change is asked for without a shared store, UnreachableError from one.
    """
    from sae_repro import params
    from sae_repro.contents import CONTENTS
    from sae_repro.numerics.kernels import choose
    from sae_repro.sharedstore import ADDRESS, shared_store
    from sae_repro.stage import STATE

    choose(params.load(study / "params.yaml").compute.bits)
    here = study / STATE / "cells"
    folders = sorted(path.parent for path in here.glob(f"*/{CONTENTS}"))
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*"))
    yield f"here: {here}: {_counted(len(folders), size)}", True
    shared = shared_store()
    if shared is None:
        if verify or offer or prune is not None:
            raise StudyError(
                f"{ADDRESS}: not set; name the shared store by it: a folder or an address"
            )
        yield f"shared: none; {ADDRESS} = a folder or an address such as s3://bucket/path", True
        return
    if offer:
        yield f"offered: {_counted(*_offer(shared, folders))}", True
    if prune is not None:
        gone = shared.prune(datetime.now(UTC) - timedelta(days=prune))
        yield f"pruned: {_counted(len(gone), sum(entry.bytes for entry in gone))}", True
    entries = shared.entries()
    yield f"shared: {shared.address}: {_described(entries)}", True
    kinds = sorted({entry.kernels for entry in entries})
    for kernels in kinds if len(kinds) > 1 else ():
        yield f"  {kernels}: {_described([e for e in entries if e.kernels == kernels])}", True
    if verify:
        yield from _verified(shared, entries)


def _offer(shared: "SharedStore", folders: Sequence[Path]) -> tuple[int, int]:
    """Copy there what is whole here and not there: how many entries, and their bytes."""
    from sae_repro.contents import Changed, examine

    number = size = 0
    there = {entry.key for entry in shared.entries() if entry.kernels == shared.kernels}
    for folder in folders:
        if folder.name in there:
            continue
        try:
            examine(folder)
        except Changed as fault:
            print(f"{fault}; not offered", file=sys.stderr)
            continue
        shared.offer(folder.name, folder)
        number += 1
        size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return number, size


def _verified(shared: "SharedStore", entries: "Sequence[Entry]") -> Iterator[tuple[str, bool]]:
    from dataclasses import replace

    from sae_repro.sharedstore import whole

    bad = [
        entry for entry in entries if not whole(replace(shared, kernels=entry.kernels), entry.key)
    ]
    for entry in bad:
        yield f"  damaged: {entry.path}", False
    yield f"verified: {len(entries) - len(bad)} of {len(entries)} entries are whole", not bad


def _described(entries: "Sequence[Entry]") -> str:
    text = _counted(len(entries), sum(entry.bytes for entry in entries))
    if not entries:
        return text
    days = [entry.written.date().isoformat() for entry in entries]
    return f"{text}, written {min(days)} to {max(days)}"


def _counted(number: int, size: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}, {size / 1e6:,.1f} MB"
