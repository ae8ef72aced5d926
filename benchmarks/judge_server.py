"""A language model in a folder, behind an OpenAI-compatible endpoint on loopback.

    python -m benchmarks.judge_server FOLDER [--name smollm2] [--port 8011] [--batch 1]

FOLDER holds a Hugging Face causal model whose tokenizer has a chat template. Then, in params.yaml:
`judge: {kind: http, base_url: http://127.0.0.1:8011/v1, model: smollm2, in_flight: 1}`.

Temperature 0 takes the most likely token. Above it, samples depend on the seed and the messages of
the request; with a batch also on the other requests in it. Requests that wait are answered
together, up to `--batch` of them with equal temperature, seed and max_tokens: a batch of 8 costs
little more than one answer, but rounding in it is not that of one, so that of two tokens almost as
likely the other may come.

The model `smollm2:01` answers with the more likely of the characters after the colon, and nothing
else: what a model that keeps to no form would say if it had to.
"""

import argparse
import json
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae_repro.files import digest

LONGEST_BODY = 1 << 20
GATHERING_S = 0.2
"""How long an incomplete batch waits for further requests."""


class Message(BaseModel):
    """A message of the conversation."""

    role: str
    content: str


class Request(BaseModel):
    """What is read of a request; other keys are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    model: str = ""
    messages: list[Message] = Field(min_length=1)
    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0)
    seed: int | None = None
    stop: list[str] = []

    @property
    def sampling(self) -> tuple[Any, ...]:
        """What requests of one batch share."""
        return self.choices, self.max_tokens, self.temperature, self.seed, tuple(self.stop)

    @property
    def choices(self) -> str:
        """The characters that the answer is chosen from; empty where any text will do."""
        return self.model.partition(":")[2]


@dataclass(frozen=True)
class Completion:
    """An answer; `ended` is False where it was cut off at max_tokens."""

    text: str
    ended: bool
    prompt_tokens: int
    tokens: int


class Model(Protocol):
    """What the endpoint serves."""

    name: str

    def fault(self, request: Request) -> str | None:
        """Why the model cannot take the request; None where it can."""
        ...

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """The answers to requests of equal sampling."""
        ...


class FolderModel:
    """A causal model of transformers, in fp32 on the CPU."""

    def __init__(self, folder: Path, name: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = name
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, padding_side="left"
        )
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).float()
        self._model.eval()

    def fault(self, request: Request) -> str | None:
        """Why prompt and answer don't fit the model's positions, or a choice is no token."""
        for choice in request.choices:
            ids = self._tokenizer.encode(choice, add_special_tokens=False)
            if len(ids) != 1 or ids[0] == self._tokenizer.unk_token_id:
                return f"model: {choice!r} is no single token of {self.name}"
        n, most = len(self._ids(request)), self._model.config.max_position_embeddings
        if n + request.max_tokens <= most:
            return None
        return f"context too long: {n} tokens, max_tokens = {request.max_tokens}; {most} fit"

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """The answers, in one batch, padded on the left."""
        import torch

        prompts = [self._ids(request) for request in requests]
        padded = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        choices, max_tokens, temperature, seed, stop = requests[0].sampling
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            torch.manual_seed(int(digest([seed, prompts])[:15], 16))
        if choices:
            ids = [self._tokenizer.encode(c, add_special_tokens=False) for c in choices]
            allowed = [token for (token,) in ids]
            sampling |= {"prefix_allowed_tokens_fn": lambda *_: allowed}
            max_tokens = 1
        if stop:
            sampling |= {"stop_strings": list(stop), "tokenizer": self._tokenizer}
        with torch.inference_mode():
            ids_bt = self._model.generate(
                **padded,
                max_new_tokens=max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                **sampling,
            )[:, padded["input_ids"].shape[1] :].tolist()
        return [
            self._completion(ids, len(prompt), stop, is_whole=bool(choices))
            for ids, prompt in zip(ids_bt, prompts, strict=True)
        ]

    def _completion(
        self, ids: list[int], n_prompt: int, stop: Sequence[str], *, is_whole: bool
    ) -> Completion:
        ends = self._model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        last = next((i for i, token in enumerate(ids) if token in ends), None)
        ids = ids if last is None else ids[: last + 1]
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        found = [text.index(end) for end in stop if end in text]
        return Completion(
            text=text[: min(found)] if found else text,
            ended=is_whole or bool(found) or last is not None,
            prompt_tokens=n_prompt,
            tokens=len(ids),
        )

    def _ids(self, request: Request) -> list[int]:
        ids: list[int] = self._tokenizer.apply_chat_template(
            [message.model_dump() for message in request.messages],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        return ids


class Batches:
    """A thread that answers what waits, at most `most` requests of equal sampling together."""

    def __init__(self, model: Model, most: int) -> None:
        self._model, self._most = model, most
        self._waiting: queue.Queue[tuple[Request, Future[Completion]]] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def answer(self, request: Request) -> Completion:
        """The answer, once its batch is done."""
        future: Future[Completion] = Future()
        self._waiting.put((request, future))
        return future.result()

    def _run(self) -> None:
        held: tuple[Request, Future[Completion]] | None = None
        while True:
            batch = [held or self._waiting.get()]
            held = None
            while len(batch) < self._most:
                try:
                    other = self._waiting.get(timeout=GATHERING_S)
                except queue.Empty:
                    break
                if other[0].sampling != batch[0][0].sampling:
                    held = other
                    break
                batch.append(other)
            try:
                completions = self._model.complete([request for request, _ in batch])
            except Exception as error:  # answered as status 500
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), completion in zip(batch, completions, strict=True):
                    future.set_result(completion)


def server(model: Model, port: int, batch: int = 1) -> ThreadingHTTPServer:
    """The endpoint on 127.0.0.1; port 0 takes a free one."""
    batches = Batches(model, batch)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/v1/models":
                return self._fail(404, f"no {self.path} here, only GET /v1/models")
            entry = {"id": model.name, "object": "model", "owned_by": "local"}
            return self._send(200, {"object": "list", "data": [entry]})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > LONGEST_BODY:
                self.close_connection = True
                return self._fail(413, f"needs a Content-Length of at most {LONGEST_BODY}")
            body = self.rfile.read(int(length))
            if self.path != "/v1/chat/completions":
                return self._fail(404, f"no {self.path} here, only POST /v1/chat/completions")
            try:
                request = Request.model_validate_json(body)
            except ValidationError as error:
                first = error.errors()[0]
                return self._fail(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
            if request.model and request.model.partition(":")[0] != model.name:
                return self._fail(404, f"no model {request.model} here, only {model.name}")
            if fault := model.fault(request):
                return self._fail(400, fault)
            try:
                return self._send(200, _response(model.name, batches.answer(request)))
            except Exception as error:
                return self._fail(500, f"{type(error).__name__}: {error}")

        def _fail(self, status: int, message: str) -> None:
            self._send(status, {"error": {"message": message, "code": status}})

        def _send(self, status: int, value: Mapping[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _response(name: str, completion: Completion) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "model": name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": completion.text},
                "finish_reason": "stop" if completion.ended else "length",
            }
        ],
        "usage": {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.tokens,
            "total_tokens": completion.prompt_tokens + completion.tokens,
        },
    }


def main() -> None:
    """Serve until interrupted."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="", help="the model's name; the folder's unless given")
    parser.add_argument("--port", type=int, default=8011)
    parser.add_argument("--batch", type=int, default=1, help="most requests answered together")
    given = parser.parse_args()
    name = given.name or given.folder.name
    served = server(FolderModel(given.folder, name), given.port, given.batch)
    print(f"serving {name} at http://127.0.0.1:{served.server_address[1]}/v1", flush=True)
    served.serve_forever()


if __name__ == "__main__":
    main()
