"""A request read as tRPC: which procedures, with which inputs, answered in which form."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

import msgspec

from oplata.rpc.codec import Codec, parse, refuse_depth
from oplata.rpc.errors import RpcError
from oplata.rpc.forms import FormData, Octets, parse_form
from oplata.rpc.http.asgi import Head
from oplata.rpc.procedure import Procedure
from oplata.rpc.service import Service

NOT_AN_OBJECT: Final = '"input" needs to be an object when doing a batch call'
JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
OCTETS: Final = "application/octet-stream"

Raw: TypeAlias = bytes | msgspec.Raw | FormData | Octets | None


class Form(Enum):
    """How the answer travels. ``OLD_STREAM`` is what the streaming link of v10 reads."""

    JSON = "json"
    JSONL = "jsonl"
    OLD_STREAM = "old stream"
    SSE = "sse"


@dataclass(slots=True)
class Inputs:
    """The inputs of a request, taken apart when the first call asks: bad JSON fails only the calls that read it."""

    service: Service
    content_type: str
    raw: bytes
    is_batch: bool
    last_event_id: str | None = None
    _parts: Mapping[str, msgspec.Raw] | None = field(default=None, init=False)

    def value(self, index: int, procedure: Procedure, codec: Codec) -> Any:
        """The checked input of the call at this place. Raises RpcError (BAD_REQUEST)."""
        raw = self._of(index)
        if isinstance(raw, FormData | Octets):
            return codec.convert(raw)
        return self.service.input(procedure, raw, self.last_event_id)

    def _of(self, index: int) -> Raw:
        if self.content_type.startswith(FORM):
            return parse_form(self.content_type, self.raw)
        if self.content_type == OCTETS:
            return Octets(self.raw)
        if not self.is_batch:
            return self.raw or None
        if self._parts is None:
            self._parts = _parts(self.raw)
        return self._parts.get(str(index))


def _parts(raw: bytes) -> Mapping[str, msgspec.Raw]:
    if not raw:
        return {}
    refuse_depth(raw)
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise RpcError("BAD_REQUEST", NOT_AN_OBJECT) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RpcError("BAD_REQUEST", str(error)) from error


@dataclass(frozen=True, slots=True)
class Request:
    """``refusal`` is set where the request as a whole cannot be answered; then no call is made."""

    head: Head
    paths: tuple[str, ...]
    procedures: tuple[Procedure | None, ...]
    is_batch: bool
    form: Form
    content_type: str = JSON
    connection_params: Mapping[str, str | None] | None = None
    last_event_id: str | None = None
    refusal: RpcError | None = None


def read_request(head: Head, service: Service) -> Request:
    """Never raises: what is wrong with the request is in ``refusal``."""
    is_batch = head.query.get("batch") == "1"
    paths = tuple(head.path.split(",")) if is_batch else (head.path,)
    procedures = tuple(service.procedures.get(path) for path in paths)
    first = procedures[0]
    form = _form(head, is_batch)
    if not is_batch and first is not None and first.kind == "subscription":
        form = Form.SSE
    content_type, refusal = JSON, None
    params: Mapping[str, str | None] | None = None
    try:
        _refuse_batch(paths, procedures, is_batch, head, service)
        content_type = _content_type(head)
        params = read_connection_params(head.query.get("connectionParams"))
    except RpcError as error:
        refusal = error
    return Request(head, paths, procedures, is_batch, form, content_type, params, _last_event_id(head), refusal)


def _form(head: Head, is_batch: bool) -> Form:
    headers = head.headers
    if headers.get("trpc-accept") == "application/jsonl" or "application/jsonl" in headers.get("accept", ""):
        return Form.JSONL
    if is_batch and headers.get("trpc-batch-mode") == "stream":
        return Form.OLD_STREAM
    return Form.JSON


def _refuse_batch(
    paths: tuple[str, ...], procedures: tuple[Procedure | None, ...], is_batch: bool, head: Head, service: Service
) -> None:
    if not is_batch:
        if _form(head, is_batch) is Form.JSONL:
            raise RpcError("BAD_REQUEST", "Streaming requests must be batched (you can do a batch of 1)")
        return
    found = [procedure for procedure in procedures if procedure is not None]
    if not service.settings.batching or not all(procedure.options.batch for procedure in found):
        raise RpcError("BAD_REQUEST", "Batching is not enabled on the server")
    if len(paths) > service.settings.limits.batch_calls:
        raise RpcError("BAD_REQUEST", "Batch call exceeds maximum size")
    kinds = list(dict.fromkeys(procedure.kind for procedure in found))
    if len(kinds) > 1:
        raise RpcError("BAD_REQUEST", f"Cannot mix procedure types in call: {', '.join(kinds)}")


def _content_type(head: Head) -> str:
    """The kind of the input. A form keeps its whole header, because the boundary stands in it."""
    given = head.headers.get("content-type")
    if head.method == "GET":
        return JSON
    if given is None:
        raise RpcError("UNSUPPORTED_MEDIA_TYPE", "Missing content-type header")
    essence = given.partition(";")[0].strip().lower()
    if essence == FORM:
        return FORM + given[len(essence) :]
    if essence in (JSON, OCTETS):
        return essence
    # The quotation mark that is missing at the end is missing in tRPC's own sentence, which clients may compare.
    raise RpcError("UNSUPPORTED_MEDIA_TYPE", f'Unsupported content-type "{given}')


def read_connection_params(raw: str | None) -> Mapping[str, str | None] | None:
    """Raises RpcError (PARSE_ERROR) for anything but an object of texts."""
    if raw is None:
        return None
    try:
        given = parse(raw.encode())
    except (RpcError, UnicodeEncodeError):
        raise RpcError("PARSE_ERROR", "Not JSON-parsable query params") from None
    return checked_params(given)


def checked_params(given: Any) -> Mapping[str, str | None] | None:
    if given is None:
        return None
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(given, dict[str, str | None])
    raise RpcError("PARSE_ERROR", "Invalid connection params shape")


def _last_event_id(head: Head) -> str | None:
    given = head.headers.get("last-event-id") or head.query.get("lastEventId") or head.query.get("Last-Event-Id")
    return given or None
