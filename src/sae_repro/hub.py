"""The Hugging Face hub: one short request before anything that would retry for minutes.

The requests that are made here have a deadline each, over everything from the look-up of the name
to the last byte.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from sae_repro.deadline import OverdueError, within
from sae_repro.errors import StudyError

TIMEOUT_S = 5.0
"""Most that one request takes in all."""
SMALL_FILE_S = 60.0
"""Most that a small file takes in all, retries of the client included."""
T = TypeVar("T")


class UnreachableError(StudyError):
    """No answer from the hub: nothing is known of what was to be fetched."""


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def reachable(what: str) -> None:
    """Return once the hub (through the proxy in front of it, if any) answers.

    StudyError, with what to do, without an answer within seconds; `what` is to be fetched.
    """
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True", "ON", "on", "yes"):
        raise unreachable(what, "HF_HUB_OFFLINE is set")
    from huggingface_hub import get_session

    try:
        # an open port is not yet an answer: behind a proxy, or under a failing hub, retries hang
        answer = _within(TIMEOUT_S, lambda: get_session().head(endpoint(), timeout=TIMEOUT_S))
    except Exception as error:  # the client's time-outs are neither OSError nor ValueError
        raise unreachable(what, error) from None
    if answer.status_code >= 500:
        raise unreachable(what, f"it answers {answer.status_code}")


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """A block that takes `what` from the hub: the client's errors become one StudyError."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise StudyError(
            f"{what}: the hub at {endpoint()} has no such repository or commit, or it is "
            f"private ({one_line(error)}); check the name and the revision, or log in with "
            "`hf auth login`"
        ) from None
    except connection_errors() as error:
        raise unreachable(what, error) from None


def commit_of(kind: Literal["model", "dataset"], name: str, revision: str | None) -> str:
    """The commit (40 hex digits) of a repository's branch or tag; None: its newest one.

    A commit is returned as it is, without the network. StudyError where the hub can't be reached
    or has no such repository.
    """
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    what = f"the commit of {kind} {name}"
    reachable(what)
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    ask = api.model_info if kind == "model" else api.dataset_info
    with fetching(what):
        try:
            found = _within(TIMEOUT_S, lambda: ask(name, revision=revision, timeout=TIMEOUT_S))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # another service answers there, or a login page
            raise unreachable(what, f"no answer of a hub: {type(error).__name__}") from None
    if not isinstance(found.sha, str):
        raise StudyError(f"{what}: the hub at {endpoint()} names none; give it with --revision")
    return found.sha


def config_of(name: str, commit: str) -> Path:
    """config.json of a model at a commit, from the cache or the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "config.json", revision=commit, local_files_only=True))
    except LocalEntryNotFoundError:
        what = f"config.json of {name} at {commit}"
        reachable(what)
        with fetching(what):
            return Path(
                _within(
                    SMALL_FILE_S,
                    lambda: hf_hub_download(
                        name, "config.json", revision=commit, endpoint=endpoint()
                    ),
                )
            )


def _within(seconds: float, call: Callable[[], T]) -> T:
    from huggingface_hub import close_session

    return within(seconds, call, release=close_session)


def connection_errors() -> tuple[type[Exception], ...]:
    """Exceptions of the hub's client for a broken connection; its time-outs are no OSError."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    return OSError, HTTPError, OverdueError


def one_line(error: object) -> str:
    """The text of `error`, short enough for a line of another message."""
    return " ".join(str(error).split())[:300]


def unreachable(what: str, reason: object) -> UnreachableError:
    """The error for `what` that could not be fetched."""
    return UnreachableError(
        f"{what}: the hub at {endpoint()} can't be reached ({one_line(reason)}); check the "
        "network, set HF_ENDPOINT to a mirror, or fetch it elsewhere and use a local source (kind: "
        "files for text, kind: local for a model)"
    )
