"""Advice on an endpoint that gives no answer: the keys of params.yaml behind each failure."""

from sae_repro.judge.backends.replies import NoText
from sae_repro.params import Judge

_LATER = "retry later, or lower judge.requests_per_minute and in_flight"


def on_status(status: int, message: str, settings: Judge) -> str:
    """What to do about a response of this HTTP status; `message` is the endpoint's."""
    if 300 <= status < 400:
        return (
            "redirects are not followed, so that the key goes nowhere else; write the URL that "
            "answers into judge.base_url"
        )
    if status in (400, 413, 422):
        return _on_parameters(status, message.lower(), settings)
    if status in (401, 403):
        return _on_key(settings)
    if status == 402:
        return "the account has no credit left: add some, or set judge.base_url to another endpoint"
    if status in (404, 405):
        return (
            f"check judge.base_url, to which /chat/completions is added, and judge.model = "
            f"{settings.model}"
        )
    if status == 429:
        return (
            "lower judge.requests_per_minute and in_flight; if the quota is used up, retry once "
            "it is renewed"
        )
    return _LATER


def on_timeout(settings: Judge) -> str:
    """What to do about a request that took longer than `timeout_s` in all."""
    return (
        f"raise judge.timeout_s = {settings.timeout_s:g} if the model needs longer than that for "
        f"one answer, or {_LATER}"
    )


def on_no_text(reply: NoText, settings: Judge) -> str:
    """What to do about a response of status 200 without an answer."""
    if reply.kind == "error":
        status = reply.code or 500
        return on_status(status, reply.found, settings)
    return {
        "cut": f"raise judge.max_tokens = {settings.max_tokens}, which limits reasoning and answer "
        "together and is a part of every question: all are asked anew; or, for a model that "
        "rambles however long it may, set judge.cut_off: unparsable",
        "withheld": "the same question would be refused again: set judge.model or judge.base_url "
        "to one that answers it",
        "silent": f"judge.model = {settings.model} may be no chat model; try another",
        "unreadable": "a proxy, a login page or another service may answer there: set "
        "judge.base_url to the API's URL up to its version, such as https://host/v1",
    }[reply.kind]


def _on_key(settings: Judge) -> str:
    if settings.key_env is None:
        return (
            "the endpoint wants a key: export it, and write the variable's name into judge.key_env"
        )
    return (
        f"the key in the variable judge.key_env = {settings.key_env} is wrong, expired or not "
        f"allowed to use judge.model = {settings.model}"
    )


def _on_parameters(status: int, message: str, settings: Judge) -> str:
    if "temperature" in message:
        return f"set judge.temperature = {settings.temperature:g} to a value that the model takes"
    shorter = "lower judge.context_tokens or judge.contexts_per_quantile"
    is_long = status == 413 or any(word in message for word in ("context", "too long"))
    if "max_tokens" in message or "max_completion_tokens" in message:
        limit = f"set judge.max_tokens = {settings.max_tokens} to a value that the model takes"
        return f"{limit}, or {shorter}" if is_long else limit
    if is_long:
        return f"the prompt is too long for the model: {shorter}"
    if "api key" in message or "api_key" in message:
        return _on_key(settings)
    return (
        f"check judge.model = {settings.model}, judge.temperature = {settings.temperature:g} and "
        f"judge.max_tokens = {settings.max_tokens}"
    )
