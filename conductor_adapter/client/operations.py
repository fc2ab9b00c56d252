"""One Conductor server without I/O: its operations are generators that yield an HttpCall and are sent an HttpAnswer.

A transport's ``TransportError`` is thrown into the generator. Threads and asyncio share the operations;
``transports.base.drive`` runs one over a transport.
"""

import math
import time
import traceback
from collections.abc import Callable, Generator
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import attrs

from conductor_adapter.client import decoding, protocol
from conductor_adapter.client.decoding import Place, PollAnswer, UnreadableTask
from conductor_adapter.client.messages import AuthRejected, HttpAnswer, HttpCall, ServerFailed
from conductor_adapter.client.protocol import Meaning, Reply, judge
from conductor_adapter.client.redaction import hide, shorten
from conductor_adapter.client.tokens import Token, TokenKeeper
from conductor_adapter.settings.server_settings import Credentials, Headers, ServerSettings, header_pairs
from conductor_adapter.tasks import Task, TaskResult
from resilience._texts import one_line
from resilience.errors import ResilienceError, Throttled, Undeliverable

__all__ = ["ConductorServer", "Operation"]

T = TypeVar("T")
Operation = Generator[HttpCall, HttpAnswer, T]
Refusal = Callable[[Reply, str], ResilienceError]

TOKEN_TTL = 45 * 60.0  # seconds; Conductor's tokens live longer, so a renewal is never too late
RENEWAL_WAIT = 0.1  # seconds that other calls wait while one of them renews the token
ASK_V2_AGAIN = 600.0  # seconds until a server that had no update-v2 is asked again: it might have been upgraded
LOOKED_AT = 2000  # characters of a text that might quote the server; searching megabytes for secrets takes minutes
BAD_REQUEST = 400
NOT_FOUND = 404
TOO_LARGE = 413
AT_THE_GATE = (*range(300, 400), 401, 403)  # answers that might mean that a gateway requires new headers


class ConductorServer:
    """The operations of one server, and its state: its token, and whether it has update-v2.

    Every operation is a generator; any number of threads can run their own ones at the same time. All operations raise:

    * ``ServerFailed`` (and its subclass ``TransportError``): a failure of the server, which counts;
    * ``Throttled``: it asked for a pause, or its token is just being renewed; ``AuthRejected``: it refuses our
      credentials; ``RequestRejected``: our request is invalid. None of these counts;
    * updates also raise ``Refused``: it answered but did not accept this result; ``Undeliverable``: it never will.

    Args:
        settings: the server.
        clock: returns monotonic seconds.
        token_ttl: seconds after which a token is renewed even if it still works.
    """

    def __init__(
        self, settings: ServerSettings, *, clock: Callable[[], float] = time.monotonic, token_ttl: float = TOKEN_TTL
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self._clock = clock
        self._tokens: TokenKeeper[str] = TokenKeeper(token_ttl, clock)
        self._passes: TokenKeeper[Headers] = TokenKeeper(math.inf, clock)  # headers from the user's function
        self._ask_v2_from = -math.inf
        self._taken = 0  # bytes of the largest result that it accepted

    def __repr__(self) -> str:
        return f"<ConductorServer {self.name!r} {self.settings.url}>"

    @property
    def has_v2(self) -> bool:
        """Whether to use update-v2: true until the server answers that it has none, and again later."""
        return self._clock() >= self._ask_v2_from

    def poll(
        self, task_type: str, worker_id: str, count: int, wait: float, domain: str | None = None
    ) -> Operation[PollAnswer]:
        """Poll for tasks.

        Args:
            task_type: the task type to poll for.
            worker_id: the worker's id.
            count: maximum number of tasks.
            wait: seconds that the server waits for a task, at most 5.
            domain: Conductor's domain, unless the server's settings name one.

        Returns:
            The tasks, possibly more than requested. If it has a ``problem``, a part of the answer was unusable, which
            is a failure of the server; it is not raised because there are tasks. Its ``unreadable`` tasks still have to
            be reported to the server by updates.
        """
        what = f"poll of {task_type!r}"
        call = protocol.build_poll(task_type, worker_id, count, wait, self.settings.domain or domain)
        reply = yield from self._accepted(what, call)
        polled = decoding.read_poll(reply.answer, count)
        if polled.problem is None and not polled.unreadable:
            return polled
        problem = None if polled.problem is None else self._text(what, polled.problem, reply)
        if problem is not None and not (polled.tasks or polled.unreadable):
            raise ServerFailed(problem)
        return PollAnswer(polled.tasks, problem, tuple(map(self._told, polled.unreadable)))

    def update(self, result: TaskResult) -> Operation[None]:
        """Report a result; repeating it is safe, because the server ignores a result that it already has."""
        what = f"update of task {result.task_id}"
        call = protocol.build_update(result)
        reply = yield from self._authorized(call)
        yield from self._accept(what, result, call, reply)
        self._read_taken(what, result.task_id, reply)

    def update_v2(self, result: TaskResult) -> Operation[Task | UnreadableTask | None]:
        """Report a result and get the next task of its type; a server without update-v2 gets a plain update.

        After a ``TransportError`` repeat it with ``update``: a second update-v2 would take another task, and the one
        in the lost answer would remain stuck.

        Returns:
            The next task; None if there is none. A task that cannot be read still has to be reported to the server.
        """
        if not self.has_v2:
            yield from self.update(result)
            return None
        what = f"update-v2 of task {result.task_id}"
        call = protocol.build_update(result, v2=True)
        reply = yield from self._authorized(call)
        if _lacks_v2(reply):
            yield from self.update(result)  # only if this works was the endpoint missing
            self._ask_v2_from = self._clock() + ASK_V2_AGAIN
            return None
        yield from self._accept(what, result, call, reply)
        task = self._read(what, decoding.read_next_task, reply)
        return self._told(task) if isinstance(task, UnreadableTask) else task

    def _accept(self, what: str, result: TaskResult, call: HttpCall, reply: Reply) -> Operation[None]:
        """Check that a result was accepted.

        If it is too large, a small one is sent instead, so that the workflow need not wait for a timeout. A server that
        accepted a larger one before, or asks for a pause, does not refer to the size.
        """
        size = len(call.body or b"")
        meant = reply.answer.status == TOO_LARGE and reply.meaning is not Meaning.PAUSE
        if meant and result.is_final and size > self._taken:
            yield from self._report_too_large(what, result, size, reply)
        self._check(what, reply, protocol.update_refusal)
        self._taken = max(self._taken, size)

    def _report_too_large(self, what: str, result: TaskResult, size: int, reply: Reply) -> Operation[None]:
        """Report a small result instead of a large one; if that is refused too, the size was not the problem."""
        problem = self._text(what, reply.excerpt, reply)
        call = protocol.build_update(protocol.too_large(result, problem))
        if len(call.body or b"") >= size:
            return
        reply = yield from self._authorized(call)
        self._check(what, reply, protocol.update_refusal)
        self._read_taken(what, result.task_id, reply)
        raise Undeliverable(problem)

    def give_back(self, task: Task) -> Operation[None]:
        """Return a task that has not started: the server hands it out again at once."""
        return self.update(protocol.give_back(task))

    def extend_lease(self, task: Task) -> Operation[None]:
        """Restart a running task's response timeout; a task that has ended is not changed."""
        what = f"heartbeat of task {task.task_id}"
        reply = yield from self._authorized(protocol.build_lease(task))
        self._check(what, reply, protocol.update_refusal)
        self._read_taken(what, task.task_id, reply)

    def place(self, path: str, operation: str, payload: str) -> Operation[Place]:
        """The place of a payload that is too large for its task, or a place for a new one.

        Args:
            path: the server's path of it; empty for a new one.
            operation: ``READ`` or ``WRITE``.
            payload: ``TASK_INPUT`` or ``TASK_OUTPUT``.
        """
        what = f"external storage of a {payload}"
        reply = yield from self._accepted(what, protocol.build_storage(path, operation, payload))
        return self._read(what, lambda got: decoding.read_place(got, self.settings.url), reply)

    def fetch(self, place: Place) -> Operation[dict[str, Any]]:
        """A payload from its place; runs over a transport to the place's origin."""
        reply = yield from self._at(place, "GET", None)
        try:
            return decoding.read_payload(reply.answer)
        except ServerFailed as error:
            raise self._payload_failed(place, str(error)) from None

    def put(self, place: Place, payload: bytes) -> Operation[None]:
        """Store a payload at its place; likewise."""
        yield from self._at(place, "PUT", payload)

    def version(self) -> Operation[str]:
        """The server's version."""
        reply = yield from self._accepted("version", HttpCall("GET", "/version"))
        return self._shown(self._read("version", decoding.read_text, reply))

    def queue_size(self, task_type: str, domain: str | None = None) -> Operation[int]:
        """The number of tasks of a type that are waiting to be polled."""
        what = f"queue size of {task_type!r}"
        query = urlencode({"taskType": task_type, **({"domain": domain} if domain else {})})
        reply = yield from self._accepted(what, HttpCall("GET", "/tasks/queue/size", query))
        return self._read(what, decoding.read_count, reply)

    def queue_sizes(self) -> Operation[dict[str, int]]:
        """The number of waiting tasks in each of the server's queues; with a domain, the queue is ``domain:type``."""
        reply = yield from self._accepted("queue sizes", HttpCall("GET", "/tasks/queue/all"))
        return self._read("queue sizes", decoding.read_counts, reply)

    def knows_task_type(self, task_type: str) -> Operation[bool]:
        """Whether the server has a definition of a task type; tasks run without one too, but it might be a typo."""
        what = f"definition of {task_type!r}"
        reply = yield from self._authorized(HttpCall("GET", f"/metadata/taskdefs/{quote(task_type, safe='')}"))
        if reply.answer.status == NOT_FOUND and reply.message.startswith("No such"):
            return False
        self._check(what, reply)
        return True

    def _at(self, place: Place, method: str, body: bytes | None) -> Operation[Reply]:
        """A call to the place of a payload: our credentials are sent only if that is the server itself."""
        path, _, query = place.target.partition("?")
        headers = (("Content-Type", "application/json"),) if body is not None else ()
        call = HttpCall(method, path, query, headers, body)
        if place.own:
            reply = yield from self._authorized(call)
        else:
            reply = judge((yield call))
        if reply.meaning is not Meaning.OK:
            redirects = ", which is not followed" if reply.answer.status in range(300, 400) else ""
            raise self._payload_failed(place, reply.excerpt, redirects)
        return reply

    def _payload_failed(self, place: Place, problem: str, more: str = "") -> ServerFailed:
        """The error for a place; its query might grant access to anyone, so it is not shown."""
        shown = self._shown(hide(one_line(problem), [place.target.partition("?")[2]]))
        return ServerFailed(f"server {self.name!r}: payload at {place.origin}: {shown}{more}")

    # Credentials.

    def _authorized(self, call: HttpCall) -> Operation[Reply]:
        """One call with the server's token, repeated once with a fresh one if it is refused."""
        credentials, headers = self.settings.auth, self.settings.headers
        if credentials is None:
            if callable(headers):
                return (yield from self._admitted(call, None))
            return judge((yield _with_headers(call, headers, None)))
        token = yield from self._token(credentials)
        reply = yield from self._admitted(call, token.value)
        if reply.meaning is not Meaning.AUTH:
            return reply
        token = yield from self._next_token(credentials, token)
        return judge((yield _with_headers(call, self._own_headers(), token.value)))

    def _admitted(self, call: HttpCall, token: str | None) -> Operation[Reply]:
        """One call; headers from a function are renewed, and the call repeated once, if a gateway might require it."""
        if not callable(self.settings.headers):
            return judge((yield _with_headers(call, self.settings.headers, token)))
        used = self._passes.current or self._next_pass(None)
        reply = judge((yield _with_headers(call, used.value, token)))
        if reply.answer.status not in AT_THE_GATE:
            return reply
        return judge((yield _with_headers(call, self._next_pass(used).value, token)))

    def _next_pass(self, refused: Token[Headers] | None) -> Token[Headers]:
        """Headers to replace refused ones, or the first ones: created by one caller for all."""
        if self._passes.claim(refused):
            return self._make_pass()
        made = self._passes.current if refused is None else self._passes.replaced(refused)
        if made is None:
            raise Throttled(RENEWAL_WAIT, f"server {self.name!r}: its headers are being renewed by another call")
        return made

    def _make_pass(self) -> Token[Headers]:
        """Call the user's function, which the caller has claimed. Its errors and results can contain secrets."""
        made, problem = None, "raised"
        try:
            headers = self.settings.headers()  # type: ignore[operator]  # it is a function
            problem = "returned something else than valid header names and values (not shown):"
            made = header_pairs(headers)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - user code: it affects only this server
            line = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} in line {line.lineno} of {line.filename}"
            text = f"server {self.name!r}: the call was not sent: the function for its headers {problem} {where}"
            raise AuthRejected(protocol.REJECTED_PAUSE, text) from None
        finally:
            if made is None:
                self._passes.give_up()
        return self._passes.store(made)

    def _token(self, credentials: Credentials) -> Operation[Token[str]]:
        """The token to use: the first one, a renewed one, or the current one."""
        token = self._tokens.current
        if token is None:
            return (yield from self._next_token(credentials, None))
        if self._tokens.is_due(token) and self._tokens.claim(token):
            try:
                return (yield from self._fetch_token(credentials))
            except ResilienceError:
                return token  # it still works; if not, the call itself fails
        return token

    def _next_token(self, credentials: Credentials, refused: Token[str] | None) -> Operation[Token[str]]:
        """A token to replace a refused one, or the first one: fetched by one caller for all."""
        if self._tokens.claim(refused):
            return (yield from self._fetch_token(credentials))
        token = self._tokens.current if refused is None else self._tokens.replaced(refused)
        if token is None:
            raise Throttled(RENEWAL_WAIT, f"server {self.name!r}: its token is being fetched by another call")
        return token

    def _fetch_token(self, credentials: Credentials) -> Operation[Token[str]]:
        """Request a token, which the caller has claimed."""
        fetched = False
        try:
            reply = yield from self._admitted(protocol.build_token(credentials.key, credentials.secret), None)
            value = self._read_token(reply)
            fetched = True
        finally:
            if not fetched:  # for any reason, including an early close
                self._tokens.give_up()
        return self._tokens.store(value)

    def _read_token(self, reply: Reply) -> str | None:
        """The token; None from a server without auth. Its answer is never quoted because it might contain a secret."""
        what, meaning, answer = f"server {self.name!r}: token", reply.meaning, reply.answer
        if answer.status == NOT_FOUND or meaning is Meaning.NO_ENDPOINT:
            return None
        if meaning is Meaning.PAUSE:
            raise Throttled(protocol.retry_after(answer), f"{what}: HTTP {answer.status}, it asks for a pause")
        if meaning in (Meaning.AUTH, Meaning.OURS) or answer.status == BAD_REQUEST:
            raise AuthRejected(protocol.AUTH_PAUSE, f"{what}: HTTP {answer.status}: check its key and secret")
        token = decoding.read_token(answer) if meaning is Meaning.OK else None
        if token is None:
            raise ServerFailed(f"{what}: HTTP {answer.status} without a token")
        return token

    def _own_headers(self) -> Headers | None:
        """The fixed headers, or the latest ones from the function."""
        if not callable(self.settings.headers):
            return self.settings.headers
        made = self._passes.current
        return None if made is None else made.value

    # Interpretation of answers.

    def _accepted(self, what: str, call: HttpCall) -> Operation[Reply]:
        reply = yield from self._authorized(call)
        self._check(what, reply)
        return reply

    def _check(self, what: str, reply: Reply, refused: Refusal = protocol.refusal) -> None:
        if reply.meaning is not Meaning.OK:
            raise refused(reply, self._text(what, reply.excerpt, reply))

    def _read(self, what: str, read: Callable[[HttpAnswer], T], reply: Reply) -> T:
        try:
            return read(reply.answer)
        except ServerFailed as error:
            raise ServerFailed(self._text(what, str(error), reply)) from None

    def _read_taken(self, what: str, task_id: str, reply: Reply) -> None:
        self._read(what, lambda answer: decoding.read_taken(answer, task_id), reply)

    def _text(self, what: str, problem: str, reply: Reply) -> str:
        """What went wrong, for people: with the way out where one is likely, and without secrets."""
        text = f"server {self.name!r}: {self._shown(what)}: {self._shown(problem)}"
        status = reply.answer.status
        if status in AT_THE_GATE and callable(self.settings.headers):
            text += "; new headers from the function did not help"
        if 300 <= status < 400:  # noqa: PLR2004 - redirects
            text += "; it redirects, but credentials are never sent along: set its url to the final address"
        elif reply.meaning is Meaning.AUTH:
            text += "; check its key and secret" if self.settings.auth else "; it requires a key and secret"
        elif self.settings.hint and status in (*range(200, 300), NOT_FOUND, 405):
            text += f"; {self.settings.hint}"
        return text

    def _told(self, task: UnreadableTask) -> UnreadableTask:
        """The task with a reason that can be shown."""
        return attrs.evolve(task, reason=self._shown(f"the worker cannot read the task: {task.reason}"))

    def _shown(self, text: str) -> str:
        """A text that might quote the server: secrets are removed first, then it is cut."""
        credentials = self.settings.auth
        fixed = () if callable(self.settings.headers) else (self.settings.headers,)
        secrets = [*self._tokens.recent, *(value for one in (*fixed, *self._passes.recent) for _, value in one)]
        secrets += [credentials.secret] if credentials else []
        return shorten(hide(one_line(text[:LOOKED_AT]), secrets))


def _with_headers(call: HttpCall, own: Headers | None, token: str | None) -> HttpCall:
    """The call with the server's own headers and its token."""
    if token is None and not own:
        return call
    headers = call.headers + (own or ())
    if token is not None:
        headers += (("X-Authorization", token),)
    return HttpCall(call.method, call.path, call.query, headers, call.body)


def _lacks_v2(reply: Reply) -> bool:
    """Whether update-v2 is missing; a 404 not from Conductor might come from a gateway that allows only some paths."""
    return reply.meaning is Meaning.NO_ENDPOINT or (
        reply.answer.status == NOT_FOUND and reply.meaning is Meaning.SERVER
    )
