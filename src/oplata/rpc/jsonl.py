"""The lines of httpBatchStreamLink: a head that promises every call, then each result as soon as it is there.

{"0":[[0],[null,0,0]],"1":[[0],[null,0,1]]}
[1,0,[[{"result":{"data":"fast"}}]]]
[0,0,[[{"result":0}],["result",0,2]]]      a stream: the data of call 0 is chunk 3, an async iterable
[2,0,[[{"data":0}],["data",1,3]]]
[3,1,[["a value"]]]
[3,0,[[]]]                                 its end
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

import msgspec

from oplata.rpc.wire import Payload, Wire

PING: Final = b" "


class Chunk(IntEnum):
    """What a chunk refers to, by its second place in a reference."""

    PROMISE = 0
    ITERABLE = 1


class Status(IntEnum):
    """0 fulfils a promise and ends an iterable; 1 rejects a promise and yields from an iterable; 2 fails an
    iterable.
    """

    DONE = 0
    YIELD = 1
    FAILED = 2


class Lines:
    """Writes the lines of one answer.

    Nothing is nested unless it streams: whole envelopes are what every client reads.
    """

    def __init__(self, wire: Wire, calls: int) -> None:
        self._wire = wire
        self._calls = calls
        self._numbers = itertools.count(calls)

    def head(self) -> bytes:
        promises = {str(index): [[0], [None, int(Chunk.PROMISE), index]] for index in range(self._calls)}
        return self._line(promises)

    def result(self, index: int, payload: Payload) -> bytes:
        envelope: dict[str, Any] = {} if payload is msgspec.UNSET else {"data": payload}
        return self._line([index, int(Status.DONE), [[{"result": envelope}]]])

    def error(self, index: int, shape: Mapping[str, Any]) -> bytes:
        return self._line([index, int(Status.DONE), [[{"error": shape}]]])

    def stream(self, index: int) -> tuple[int, bytes]:
        """Promises an async iterable; the number is what its values are sent under."""
        envelope, number = next(self._numbers), next(self._numbers)
        promised = self._line([index, 0, [[{"result": 0}], ["result", int(Chunk.PROMISE), envelope]]])
        return number, promised + self._line([envelope, 0, [[{"data": 0}], ["data", int(Chunk.ITERABLE), number]]])

    def value(self, number: int, payload: Payload) -> bytes:
        place = [] if payload is msgspec.UNSET else [payload]
        return self._line([number, int(Status.YIELD), [place]])

    def end(self, number: int) -> bytes:
        return self._line([number, int(Status.DONE), [[]]])

    def failure(self, number: int, shape: Mapping[str, Any]) -> bytes:
        return self._line([number, int(Status.FAILED), shape])

    def _line(self, document: Any) -> bytes:
        return self._wire.encode(self._wire.wrap(document)) + b"\n"


class OldLines:
    """The form of v10: one JSON object whose members come in the order in which the calls end."""

    OPENING: Final = b"{"
    CLOSING: Final = b"}"

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._written = 0

    def answer(self, index: int, envelope: Mapping[str, Any]) -> bytes:
        opening = b"," if self._written else self.OPENING
        self._written += 1
        return opening + b'"%d":' % index + self._wire.encode(envelope) + b"\n"

    def end(self) -> bytes:
        return self.CLOSING if self._written else self.OPENING + self.CLOSING
