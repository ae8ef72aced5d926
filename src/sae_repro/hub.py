"""The Hugging Face hub, asked once and briefly before anything that would retry for long."""

import os
import socket
from urllib.parse import urlsplit

from sae_repro.errors import StudyError

TIMEOUT_S = 5.0


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def reachable(what: str) -> None:
    """Return once a connection to the hub (or the proxy in front of it) opens.

    StudyError, saying what to do, when none does within seconds; `what` is the thing wanted.
    """
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True", "ON", "on", "yes"):
        raise unreachable(what, "HF_HUB_OFFLINE is set")
    parts = urlsplit(_proxy() or endpoint())
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT_S).close()
    except OSError as error:
        raise unreachable(what, error) from None


def unreachable(what: str, why: object) -> StudyError:
    """The error for `what` that could not be fetched."""
    reason = " ".join(str(why).split())[:200]
    return StudyError(
        f"{what}: the hub at {endpoint()} can't be reached ({reason}); check the network, set "
        "HF_ENDPOINT to a mirror, or fetch it elsewhere and use a local source (kind: files for "
        "text, kind: local for a model)"
    )


def _proxy() -> str | None:
    scheme = urlsplit(endpoint()).scheme
    return os.environ.get(f"{scheme}_proxy") or os.environ.get(f"{scheme.upper()}_PROXY")
