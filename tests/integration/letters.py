"""Messages as a stranger puts them into the broker, byte by byte, without Celery's help; and the hostile ones."""

import dataclasses
import json
import os
import pickle
import uuid
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from kombu import Connection

#: What a message must not make a worker do; the file would be in its directory.
TOUCH = "touch exploded"
DELIVER = "deferred_signals.deliver"
ALARM: dict[str, Any] = {
    "task": "tests.integration.project.shop.tasks.alarm",
    "args": [],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": True,
}


@dataclasses.dataclass
class Letter:
    """One message: what Celery's protocol 2 says of it, and whatever a stranger makes of that."""

    body: Any
    headers: dict[str, Any]
    content_type: Any = "application/json"
    content_encoding: Any = "utf-8"
    properties: dict[str, Any] = dataclasses.field(default_factory=dict)

    def put(self, broker_url: str, queue: str) -> None:
        """Put it into the queue."""
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        with Connection(broker_url) as connection:
            connection.Producer(auto_declare=False).publish(
                body,
                routing_key=queue,
                content_type=self.content_type,
                content_encoding=self.content_encoding,
                headers=self.headers,
                retry=False,
                **self.properties,
            )


def letter(payload: Any, **headers: Any) -> Letter:
    """A message as Celery writes it, with these headers in the place of its own; ``...`` leaves one out."""
    delivery_id = str(uuid.uuid4())
    usual: dict[str, Any] = {
        "lang": "py",
        "task": DELIVER,
        "id": delivery_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": delivery_id,
        "parent_id": None,
        "argsrepr": "",
        "kwargsrepr": "{}",
        "origin": "stranger",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    said = {name: value for name, value in {**usual, **headers}.items() if value is not ...}
    return Letter([[payload], {}, embedded], said)


class Exploding:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (TOUCH,)


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


class Hostile(NamedTuple):
    """How a message is made of a genuine payload, what the log says of it, and how often the payload may run."""

    make: Callable[[str], Letter]
    said: str
    runs: int = 0


REFUSED = "is refused"
DEAD = "A payload is dead"


def _no_utf16(genuine: str) -> bytes:
    """Of an odd length: an even one py-amqp makes UTF-16 of, whatever that says, and then it is no JSON."""
    body = json.dumps([[genuine], {}, {}]).encode()
    return body + b" " * (1 - len(body) % 2)


def _with_body(body: Any, **changes: Any) -> Callable[[str], Letter]:
    def make(genuine: str) -> Letter:
        made = body(genuine) if callable(body) else body
        return dataclasses.replace(letter(genuine), body=made, **changes)

    return make


def _with(**headers: Any) -> Callable[[str], Letter]:
    return lambda genuine: letter(genuine, **headers)


def _properties(**properties: Any) -> Callable[[str], Letter]:
    return lambda genuine: dataclasses.replace(letter(genuine), properties=properties)


def _embedded(**parts: Any) -> Callable[[str], Letter]:
    return _with_body(lambda genuine: [[genuine], {}, parts])


def _compressed(name: str) -> Callable[[str], Letter]:
    def make(genuine: str) -> Letter:
        made = letter(genuine, compression=name)
        made.body = zlib.compress(json.dumps(made.body).encode())
        return made

    return make


def _protocol_1(**changes: Any) -> Callable[[str], Letter]:
    def make(genuine: str) -> Letter:
        fields = {"task": DELIVER, "id": str(uuid.uuid4()), "args": [genuine], "kwargs": {}, "retries": 0, "eta": None}
        return Letter({**fields, **changes}, {})

    return make


def _hybrid(genuine: str) -> Letter:
    return dataclasses.replace(letter(genuine), body={"args": [genuine], "kwargs": {}, "callbacks": [ALARM]})


INJECTED = "x\nINJECTED\r\x1b[2J\x00"

BODIES = {
    "pickle": Hostile(
        _with_body(
            lambda _: pickle.dumps(Exploding()),
            content_type="application/x-python-serialize",
            content_encoding="binary",
        ),
        REFUSED,
    ),
    "pickle that says it is JSON": Hostile(_with_body(lambda _: pickle.dumps(Exploding())), REFUSED),
    "yaml": Hostile(
        _with_body(f"!!python/object/apply:os.system ['{TOUCH}']".encode(), content_type="application/x-yaml"), REFUSED
    ),
    "msgpack": Hostile(
        _with_body(b"\x93\x91\xa6forged\x80\x80", content_type="application/x-msgpack", content_encoding="binary"),
        REFUSED,
    ),
    "plain text": Hostile(_with_body(lambda genuine: genuine.encode(), content_type="text/plain"), REFUSED),
    "another encoding's name": Hostile(_with_body(_no_utf16, content_encoding="utf-16"), "", runs=1),
    "another encoding": Hostile(_with_body(lambda g: json.dumps([[g], {}, {}]).encode("utf-16")), REFUSED),
    "nothing": Hostile(_with_body(b""), REFUSED),
    "not JSON": Hostile(_with_body(b"{"), REFUSED),
    "binary": Hostile(_with_body(bytes(range(256))), REFUSED),
    "a number": Hostile(_with_body(5), REFUSED),
    "null": Hostile(_with_body(b"null"), REFUSED),
    "a string": Hostile(_with_body('"args"'), REFUSED),
    "an empty object": Hostile(_with_body({}), REFUSED),
    "an empty list": Hostile(_with_body([]), REFUSED),
    "no arguments": Hostile(_with_body([[], {}, {}]), REFUSED),
    "no arguments, and callbacks for the error": Hostile(_with_body([[], {}, {"errbacks": [ALARM]}]), REFUSED),
    "two parts": Hostile(_with_body(lambda g: [[g], {}]), REFUSED),
    "four parts": Hostile(_with_body(lambda g: [[g], {}, {}, {}]), REFUSED),
    "arguments that are a string": Hostile(_with_body(lambda g: [g, {}, {}]), REFUSED),
    "two arguments": Hostile(_with_body(lambda g: [[g, g], {}, {}]), REFUSED),
    "a keyword argument": Hostile(_with_body(lambda g: [[g], {"payload": g}, {}]), REFUSED),
    "keyword arguments that are a list": Hostile(_with_body(lambda g: [[g], [], {}]), REFUSED),
    "an object as the payload": Hostile(_with_body([[{"v": 1, "to": "os.system"}], {}, {}]), REFUSED),
    "a marker of kombu's as the payload": Hostile(
        _with_body([[{"__type__": "uuid", "__value__": {"int": 5}}], {}, {}]), REFUSED
    ),
    "arguments nested 900 deep": Hostile(_with_body(b"[[" + nested(900) + b"],{},{}]"), REFUSED),
    "objects nested 900 deep": Hostile(_with_body(b"[[" + b'{"a":' * 900 + b"1" + b"}" * 900 + b"],{},{}]"), REFUSED),
    "arguments nested 100,000 deep": Hostile(_with_body(b"[[" + nested(100_000) + b"],{},{}]"), REFUSED),
    "what is embedded, nested 900 deep": Hostile(
        _with_body(lambda g: b'[["' + g.replace('"', '\\"').encode() + b'"],{},{"chain":' + nested(900) + b"}]"),
        "",
        runs=1,
    ),
    "embedded keys of nobody's": Hostile(_embedded(id="x", task="os.system", timelimit="x", retries="x"), "", runs=1),
    "embedded callbacks": Hostile(
        _embedded(callbacks=[ALARM], errbacks=[ALARM], chain=[ALARM], chord=ALARM), "", runs=1
    ),
    "embedded callbacks of a forged payload": Hostile(
        lambda _: dataclasses.replace(
            letter(""),
            body=[["forged"], {}, {"callbacks": [ALARM], "errbacks": [ALARM], "chain": [ALARM], "chord": ALARM}],
        ),
        DEAD,
    ),
    "50 MB": Hostile(_with_body(b"[[" + b'"' + b"x" * 50_000_000 + b'"],{},{}]'), REFUSED),
    "compressed by gzip": Hostile(_compressed("gzip"), REFUSED),
    "compressed by zlib": Hostile(_compressed("application/x-gzip"), REFUSED),
    "protocol 1 with callbacks": Hostile(
        _protocol_1(callbacks=[ALARM], errbacks=[ALARM], chord=ALARM, chain=[ALARM]), "", runs=1
    ),
    "protocol 1 with words for all": Hostile(_protocol_1(taskset=[], group={}, utc="x", headers="x", x=[]), "", runs=1),
    "protocol 1 with a nested argument": Hostile(_protocol_1(args=[json.loads(nested(900))]), REFUSED),
    "protocol 1 with two arguments": Hostile(_protocol_1(args=["x", "y"]), REFUSED),
    "protocol 1 with a keyword argument": Hostile(_protocol_1(kwargs={"payload": "x"}), REFUSED),
    "protocol 1 with an id that is a list": Hostile(_protocol_1(id=["x"]), REFUSED),
    "protocol 1 with time limits that are words": Hostile(_protocol_1(timelimit=["x", "y"]), REFUSED),
    "protocol 1 with an ETA that is garbage": Hostile(_protocol_1(eta="soon"), REFUSED),
    "between protocols 1 and 2": Hostile(_hybrid, REFUSED),
}

HEADERS = {
    "no id": Hostile(_with(id=...), REFUSED),
    "an id that is a list": Hostile(_with(id=["x"]), REFUSED),
    "an id that is a number": Hostile(_with(id=5), REFUSED),
    "an id of 100 KB": Hostile(_with(id="x" * 100_000), REFUSED),
    "an id with a new line": Hostile(_with(id=INJECTED), REFUSED),
    "a label with a new line": Hostile(_with(shadow=INJECTED), "", runs=1),
    "a label of 10 KB": Hostile(_with(shadow="x" * 10_000), "", runs=1),
    "a label that is an object": Hostile(_with(shadow={"a": "b"}), "", runs=1),
    "representations with a new line": Hostile(_with(argsrepr=INJECTED, kwargsrepr=[INJECTED]), "", runs=1),
    "an ETA that is garbage": Hostile(_with(eta="soon"), REFUSED),
    "an ETA that is a list": Hostile(_with(eta=["x"]), REFUSED),
    "an ETA that is a number": Hostile(_with(eta=1), REFUSED),
    "an ETA of 100 KB": Hostile(_with(eta="2" * 100_000), REFUSED),
    "an ETA before the beginning": Hostile(_with(eta="0001-01-01T00:00:00+14:00"), REFUSED),
    "an ETA after the end": Hostile(_with(eta="9999-12-31T23:59:59-14:00"), REFUSED),
    "an ETA in the year 99999": Hostile(_with(eta="99999-01-01T00:00:00+00:00"), REFUSED),
    "an expiry that is garbage": Hostile(_with(expires="soon"), REFUSED),
    "an expiry that is a list": Hostile(_with(expires=["x"]), REFUSED),
    "an expiry before the beginning": Hostile(_with(expires="0001-01-01T00:00:00+14:00"), REFUSED),
    "time limits that are words": Hostile(_with(timelimit=["x", {}]), REFUSED),
    "time limits that are a string": Hostile(_with(timelimit="xy"), REFUSED),
    "one time limit": Hostile(_with(timelimit=[5]), REFUSED),
    "negative time limits": Hostile(_with(timelimit=[-1, -1]), REFUSED),
    "time limits without an end": Hostile(_with(timelimit=[1e300, 1e300]), REFUSED),
    "retries that are a word": Hostile(_with(retries="x"), REFUSED),
    "negative retries": Hostile(_with(retries=-1), REFUSED),
    "retries that are a list": Hostile(_with(retries=[]), REFUSED),
    "a group": Hostile(_with(group="x", group_index=0), "", runs=1),
    "a group that is an object": Hostile(_with(group={"a": []}, group_index="x"), "", runs=1),
    "stamps that are no object": Hostile(_with(stamped_headers=["a"], stamps=["x"]), "", runs=1),
    "stamps that name an object": Hostile(_with(stamped_headers=[{}], stamps={}), "", runs=1),
    "a root that is a list": Hostile(_with(root_id=["x"], parent_id={"a": 1}), "", runs=1),
    "results that nobody wants": Hostile(_with(ignore_result=False), "", runs=1),
    "results by a word": Hostile(_with(ignore_result="no"), "", runs=1),
    "a nesting that is an object": Hostile(_with(replaced_task_nesting={"a": 1}), "", runs=1),
    "an origin that is a list": Hostile(_with(origin=[INJECTED], lang=5, meth={}), "", runs=1),
    "callbacks in the headers": Hostile(
        _with(callbacks=[ALARM], errbacks=[ALARM], chain=[ALARM], chord=ALARM), "", runs=1
    ),
    "arguments in the headers": Hostile(
        _with(args=["x"], kwargs={"payload": "x"}, is_eager=True, called_directly=True), "", runs=1
    ),
    "methods of the request": Hostile(_with(get="x", update="x", clear=[], __class__="x", __dict__={}), "", runs=1),
    "that it has expired": Hostile(_with(deferred_signals_expired=True), "", runs=1),
    "who else it is": Hostile(_with(hostname=INJECTED, delivery_info={"redelivered": "x"}, properties=[]), "", runs=1),
    "a header nested deep": Hostile(_with(trace=json.loads(nested(60))), REFUSED),
    "a header of 100 KB": Hostile(_with(trace="x" * 100_000), REFUSED),
    "whom to reply to": Hostile(_properties(reply_to="celery", correlation_id="x" * 200), "", runs=1),
}
HOSTILE = BODIES | HEADERS
