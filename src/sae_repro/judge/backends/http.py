"""A language model behind an OpenAI-compatible endpoint: `POST base_url/chat/completions`.

Only what the record lacks is asked. An endpoint that is busy (429), failing (5xx), slow or gone is
asked again, with waits that double, or as long as its Retry-After says; then the run ends with an
error, and what was answered until then is kept. An answer in which there is no text (broken JSON,
no choices, endless) is recorded as a fault, for a well-set-up endpoint would send the same again.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from threading import Event

import httpx2

from sae_repro.errors import StudyError
from sae_repro.files import canonical_json
from sae_repro.judge.backends.key import Key, quiet_client
from sae_repro.judge.backends.pace import Clock, Pace, StoppedError
from sae_repro.judge.backends.record import Recorder, read_record, recording
from sae_repro.judge.backends.replies import MAX_BYTES, Reply, answer_in, error_in, retry_after
from sae_repro.judge.questions import Answer, Question, key_of
from sae_repro.numerics.random import generator
from sae_repro.params import Judge

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
LONGEST_ASKED_WAIT_S = 600.0
"""An endpoint that asks for more (a daily quota) ends the run instead of hanging it."""


class NoAnswerError(Exception):
    """One question can't be answered now; the message says why."""


class HttpBackend:
    """A backend that asks `settings.model` and records what it answers in `record`."""

    def __init__(self, settings: Judge, record: Path, *, clock: Clock | None = None) -> None:
        assert settings.model is not None
        self._settings = settings
        self._model = settings.model
        self._record = record
        self._clock = clock or Clock()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Recorded answers, and new ones for the rest.

        StudyError where the key is missing, or where the endpoint refuses or fails for good.
        """
        keyed = {key_of(self._model, question): question for question in questions}
        recorded: Mapping[str, Answer] = read_record(self._record)
        if keyed.keys() - recorded.keys():
            key = Key(self._settings.key_env)
            with recording(self._record) as recorder:
                # another run may have answered some while this one waited for the record
                _Run(self._settings, self._clock, key, recorder).ask(keyed, self._record)
            recorded = recorder.answers
        return [recorded[key_of(self._model, question)] for question in questions]


class _Run:
    """The asking of what one record lacks."""

    def __init__(self, settings: Judge, clock: Clock, key: Key, recorder: Recorder) -> None:
        self._settings = settings
        self._clock = clock
        self._key = key
        self._recorder = recorder
        self._stop = Event()
        self._pace = Pace(settings.requests_per_minute, clock, self._stop)
        self._url = f"{(settings.base_url or '').rstrip('/')}/chat/completions"

    def ask(self, keyed: Mapping[str, Question], record: Path) -> None:
        """Record an answer to each question by key, `in_flight` at a time."""
        from tqdm import tqdm

        missing = [key for key in keyed if key not in self._recorder.answers]
        done = len(keyed) - len(missing)
        with (
            quiet_client(),
            self._client() as client,
            ThreadPoolExecutor(self._settings.in_flight) as pool,
            tqdm(desc="judge", unit="answer", total=len(keyed), initial=done, disable=None) as bar,
        ):
            asked = [pool.submit(self._one, client, key, keyed[key]) for key in missing]
            try:
                for future in as_completed(asked):
                    # those that another's failure stopped are not the ones to report
                    with suppress(StoppedError):
                        future.result()
                        bar.update()
            except BaseException as error:
                # requests under way are let finish: their answers are paid for
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                if isinstance(error, NoAnswerError):
                    raise self._failed(error, keyed, record) from None
                raise

    def _client(self) -> httpx2.Client:
        # redirects are not followed: the key goes where params.yaml says, and nowhere else
        return httpx2.Client(
            timeout=self._settings.timeout_s,
            headers={"Content-Type": "application/json", **self._key.headers()},
            follow_redirects=False,
        )

    def _failed(
        self, error: NoAnswerError, keyed: Mapping[str, Question], record: Path
    ) -> StudyError:
        kept = len(keyed.keys() & self._recorder.answers.keys())
        return StudyError(
            f"judge.base_url = {self._settings.base_url}: {error}; {kept} of {len(keyed)} answers "
            f"are kept in {record}, and the same command asks for the rest"
        )

    def _one(self, client: httpx2.Client, key: str, question: Question) -> None:
        """Record an answer; NoAnswerError, for all who wait, where there will be none."""
        try:
            self._recorder.add(key, self._insist(client, key, question))
        except NoAnswerError:
            # here, not where the error arrives: this thread's next question would be asked first
            self._stop.set()
            raise

    def _insist(self, client: httpx2.Client, key: str, question: Question) -> Answer:
        """Ask until there is an answer; NoAnswerError after `attempts` tries."""
        for attempt in range(self._settings.attempts):
            self._pace.turn()
            try:
                reply = self._post(client, question)
            except httpx2.InvalidURL as error:
                raise NoAnswerError(f"no address ({error}); mend it") from None
            except httpx2.RequestError as error:
                # a name says more than some messages, which are empty
                why, wait = f"{type(error).__name__} {error}".strip(), None
            else:
                if reply.status == 200:
                    return answer_in(reply.body, self._key.hide)
                why = error_in(reply, self._key.hide)
                if not _passing(reply.status):
                    raise NoAnswerError(
                        f"it refuses: {why}; check judge.model, base_url and key_env"
                    )
                wait = retry_after(reply, self._clock.date())
            if wait is not None and wait > LONGEST_ASKED_WAIT_S:
                raise NoAnswerError(f"it wants {wait:.0f} s of rest ({why}); come back then")
            self._pace.hold(_back_off(key, attempt) if wait is None else wait)
        raise NoAnswerError(
            f"no answer in {self._settings.attempts} attempts, at last {self._key.hide(why)}; "
            "come back later, or lower judge.requests_per_minute and in_flight"
        )

    def _post(self, client: httpx2.Client, question: Question) -> Reply:
        """One request. Its body is read up to MAX_BYTES, its time is `timeout_s` in all."""
        sent = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": question.prompt.text}],
            **question.sampling.fields(),
        }
        deadline = self._clock.now() + self._settings.timeout_s
        content = canonical_json(sent).encode()
        with client.stream("POST", self._url, content=content) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    break
                # the client's own limit is on each wait: an endpoint that drips would pass it
                if self._clock.now() > deadline:
                    raise httpx2.ReadTimeout(f"not done in {self._settings.timeout_s:g} s")
            return Reply(response.status_code, response.headers, bytes(body))


def _passing(status: int) -> bool:
    """Whether an endpoint with this status may answer later."""
    return status in (408, 425, 429) or status >= 500


def _back_off(key: str, attempt: int) -> float:
    """Seconds to wait: doubling, spread over a factor of two so that many clients don't meet."""
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt)
    return longest * float(generator("judge", key, attempt).uniform(0.5, 1.0))
