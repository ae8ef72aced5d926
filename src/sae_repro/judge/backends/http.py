"""The http backend: an OpenAI-compatible endpoint, `POST base_url/chat/completions`.

Only unrecorded answers are requested. A request to an endpoint that is busy (429), failing (5xx),
slow or unreachable is retried, with waits that double or follow its Retry-After; so is one that
brings no text of the model (an error with status 200, a web page, no choices). Then the run ends
with an error, and the answers received until then are kept. Nothing but the model's text is
recorded. An answer cut off at max_tokens ends the run at once, for the same would come again, or is
recorded as cut off, as `cut_off` says.

`timeout_s` covers all of a request, from the look-up of the endpoint's name to the last byte.
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

import httpx2

from sae_repro.deadline import OverdueError
from sae_repro.errors import StudyError
from sae_repro.files import canonical_json
from sae_repro.judge.backends.advice import on_no_text, on_status, on_timeout
from sae_repro.judge.backends.api_key import ApiKey, quiet_client
from sae_repro.judge.backends.rate_limit import Clock, RateLimit, StoppedError
from sae_repro.judge.backends.record import Recorder, read_answers, recording
from sae_repro.judge.backends.replies import (
    NoText,
    Reply,
    error_in,
    message_in,
    retry_after,
    text_in,
)
from sae_repro.judge.backends.sending import Sender
from sae_repro.judge.protocol import Answer, Question, key_of
from sae_repro.numerics.random import generator
from sae_repro.params import Judge
from sae_repro.progress import bar

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
LONGEST_ASKED_WAIT_S = 600.0
"""Most that the Retry-After of one question's attempts may come to, all of them together.

A longer one (a daily quota) ends the run instead of hanging it.
"""


class NoAnswerError(Exception):
    """A question cannot be answered now; the message says why."""


class HttpBackend:
    """A backend that asks `settings.model` and records its answers in `record`."""

    def __init__(self, settings: Judge, record: Path, *, clock: Clock | None = None) -> None:
        assert settings.model is not None
        self._settings = settings
        self._model = settings.model
        self._record = record
        self._clock = clock or Clock()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Recorded answers, and new ones for the rest.

        StudyError where the key is missing, or where the endpoint refuses or keeps failing.
        """
        keyed = {key_of(self._model, question): question for question in questions}
        recorded: Mapping[str, Answer] = read_answers(self._record)
        if keyed.keys() - recorded.keys():
            key = ApiKey(self._settings.key_env)
            with recording(self._record) as recorder:
                # another run may have recorded some while this one waited for the lock
                _Run(self._settings, self._clock, key, recorder).ask(keyed, self._record)
            recorded = recorder.answers
        return [recorded[key_of(self._model, question)] for question in questions]


class _Run:
    """The requests for the answers that one record lacks."""

    def __init__(self, settings: Judge, clock: Clock, key: ApiKey, recorder: Recorder) -> None:
        self._settings = settings
        self._clock = clock
        self._key = key
        self._recorder = recorder
        self._stop = Event()
        self._rate_limit = RateLimit(settings.requests_per_minute, clock, self._stop)
        self._url = f"{(settings.base_url or '').rstrip('/')}/chat/completions"
        self._lock = Lock()
        self._said_until = 0.0
        self._limit = "max_tokens"

    def ask(self, keyed: Mapping[str, Question], record: Path) -> None:
        """Record an answer to each question by key, `in_flight` at a time."""
        missing = [key for key in keyed if key not in self._recorder.answers]
        n_answered = len(keyed) - len(missing)
        with (
            quiet_client(),
            Sender(self._key.headers(), self._settings.timeout_s) as sender,
            ThreadPoolExecutor(self._settings.in_flight) as pool,
            bar("judge", unit="answer", total=len(keyed), initial=n_answered) as progress,
        ):
            futures = [pool.submit(self._one, sender, key, keyed[key]) for key in missing]
            try:
                for future in as_completed(futures):
                    # requests that another's failure stopped are not the ones to report
                    with suppress(StoppedError):
                        future.result()
                        progress.update()
            except BaseException as error:
                # requests in flight may finish: their answers are paid for
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                if isinstance(error, NoAnswerError):
                    raise self._failed(error, keyed, record) from None
                raise

    def _failed(
        self, error: NoAnswerError, keyed: Mapping[str, Question], record: Path
    ) -> StudyError:
        recorded = len(keyed.keys() & self._recorder.answers.keys())
        return StudyError(
            f"judge.base_url = {self._settings.base_url}: {error}; {recorded} of {len(keyed)} "
            f"answers are kept in {record}; run the same command to request the rest"
        )

    def _one(self, sender: Sender, key: str, question: Question) -> None:
        """Record an answer; NoAnswerError, which stops the other requests, where there is none."""
        try:
            self._recorder.add(key, self._with_retries(sender, key, question))
        except NoAnswerError:
            # here, not where the error arrives: this thread would send its next request first
            self._stop.set()
            raise

    def _with_retries(self, sender: Sender, key: str, question: Question) -> Answer:
        """Ask until there is an answer; NoAnswerError after `attempts` tries."""
        failure: _Failure | None = None
        asked_s = 0.0
        for attempt in range(self._settings.attempts):
            self._rate_limit.turn()
            result = self._attempt(sender, question)
            if isinstance(result, Answer):
                return result
            failure, wait = result, result.wait
            asked_s += wait or 0.0
            if wait is not None and asked_s > LONGEST_ASKED_WAIT_S:
                before = f", {asked_s:.0f} s in all" if asked_s > wait else ""
                raise NoAnswerError(
                    f"asks to wait {wait:.0f} s{before} ({failure.reason}); retry after that"
                )
            if attempt + 1 < self._settings.attempts:
                self._hold(_back_off(key, attempt) if wait is None else wait, failure.reason)
        assert failure is not None  # attempts ≥ 1
        raise NoAnswerError(
            f"no answer in {self._settings.attempts} attempts, last error: {failure.reason}; "
            f"{failure.advice}"
        )

    def _hold(self, seconds: float, reason: str) -> None:
        """Send nothing for so long; a line where that is long, and none said so already."""
        with self._lock:
            end = self._clock.now() + seconds
            is_news = seconds >= LONGEST_WAIT_S and end > self._said_until + LONGEST_WAIT_S
            self._said_until = end if is_news else self._said_until
        if is_news:
            _say(f"judge: no request for {seconds:.0f} s, as the endpoint asks ({reason})")
        self._rate_limit.hold(seconds)

    def _attempt(self, sender: Sender, question: Question) -> "Answer | _Failure":
        """One answer, or why there is none yet; NoAnswerError where no retry would help."""
        hide = self._key.hide
        try:
            limit = self._limit  # another thread may change it meanwhile
            reply = self._post(sender, question, limit)
            if limit == "max_tokens" and _wants_another_limit(reply):
                limit = self._rename_limit(question)
                self._rate_limit.turn()
                reply = self._post(sender, question, limit)
        except httpx2.InvalidURL as error:
            raise NoAnswerError(f"not a valid URL ({error}); correct it") from None
        except OverdueError as error:
            return _Failure(str(error), on_timeout(self._settings), None)
        except httpx2.RequestError as error:
            # with the class's name: some messages are empty
            reason = hide(f"{type(error).__name__} {error}".strip())
            return _Failure(reason, on_status(503, "", self._settings), None)
        wait = retry_after(reply, self._clock.date())
        if 200 <= reply.status < 300:
            text = text_in(reply.body, hide)
            if isinstance(text, str):
                return Answer(text)
            if text.kind == "cut" and self._settings.cut_off == "unparsable":
                return Answer(text.said, cut=True)
            advice = on_no_text(text, self._settings)
            if text.kind in ("cut", "withheld"):
                raise NoAnswerError(f"{text.found}; {advice}")
            return _Failure(f"status {reply.status} with {text.found}", advice, wait)
        reason = error_in(reply, hide)
        advice = on_status(reply.status, message_in(reply.body), self._settings)
        if not _is_temporary(reply.status):
            raise NoAnswerError(f"request refused: {reason}; {advice}")
        return _Failure(reason, advice, wait)

    def _rename_limit(self, question: Question) -> str:
        with self._lock:
            is_new, self._limit = self._limit == "max_tokens", "max_completion_tokens"
        if is_new:
            _say(
                f"judge: {self._settings.model} takes no max_tokens; the same limit, "
                f"{question.sampling.max_tokens}, is sent as max_completion_tokens"
            )
        return self._limit

    def _post(self, sender: Sender, question: Question, limit: str) -> Reply:
        """One request, with the limit of tokens by the name `limit`."""
        fields = question.sampling.fields()
        request = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": question.prompt.text}],
            **{limit if name == "max_tokens" else name: fields[name] for name in fields},
        }
        return sender.post(self._url, canonical_json(request).encode())


@dataclass(frozen=True)
class _Failure:
    """A request that a later one may make good."""

    reason: str
    advice: str
    wait: float | None
    """Seconds, where the endpoint says how long."""


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


def _wants_another_limit(reply: Reply) -> bool:
    """Whether `max_tokens` was refused for `max_completion_tokens`, its name for newer models."""
    refused = reply.status in (400, 422) or isinstance(text_in(reply.body, str), NoText)
    return refused and "max_completion_tokens" in message_in(reply.body)


def _is_temporary(status: int) -> bool:
    """Whether an endpoint with this status may answer later."""
    return status in (408, 425, 429) or status >= 500


def _back_off(key: str, attempt: int) -> float:
    """Seconds to wait: doubling, with jitter, so that many clients do not retry at once."""
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt)
    return longest * float(generator("judge", key, attempt).uniform(0.5, 1.0))
