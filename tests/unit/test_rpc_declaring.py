"""Routers, procedures, types and direct calls, without any transport."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
from collections.abc import AsyncIterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from oplata.rpc.errors import CODES, DeclarationError, RpcError
from oplata.rpc.middleware import Base, Call, Proceed
from oplata.rpc.router import Router
from oplata.rpc.tracked import Tracked, tracked

pytestmark = pytest.mark.anyio

T = TypeVar("T")
UTC = datetime.UTC


class Status(enum.Enum):
    """How far an order is."""

    NEW = "new"
    PAID = "paid"


@dataclasses.dataclass
class Line:
    item_name: str
    unit_price: decimal.Decimal


class Order(msgspec.Struct):
    """What somebody wants."""

    order_id: int
    status: Status
    made_at: datetime.datetime
    lines: list[Line] = []


class Page(msgspec.Struct, Generic[T]):
    page_items: list[T]
    next_page: int | None = None


class Note(TypedDict):
    note_text: str
    written_by: NotRequired[str]


class Pair(NamedTuple):
    first_one: int
    second_one: str


class Cash(msgspec.Struct, tag="cash", tag_field="kind"):
    bank_notes: int


class Card(msgspec.Struct, tag="card", tag_field="kind"):
    card_number: str


class Tree(msgspec.Struct):
    node_name: str
    child_nodes: list[Tree] = []


class Person(pydantic.BaseModel):
    first_name: str
    years: int = pydantic.Field(default=18, ge=0)


@dataclasses.dataclass
class Context:
    user: str | None = None


@dataclasses.dataclass
class UserContext:
    user: str


async def signed_in(call: Call[Context], proceed: Proceed[UserContext]) -> Any:
    if call.ctx.user is None:
        raise RpcError("UNAUTHORIZED")
    return await proceed(UserContext(call.ctx.user))


def both_ways(annotation: Any, value: Any) -> tuple[bytes, Any]:
    """The wire form of a value and what is read from it again."""
    router = Router()

    async def echo(value: Any, /) -> Any:
        return value

    echo.__annotations__ = {"value": annotation, "return": annotation}
    router.query(echo)
    procedure = router.procedures()["echo"]
    assert procedure.output is not None
    assert procedure.input is not None
    written = procedure.output.encode(value)
    return written, procedure.input.decode(written)


ORDER = Order(7, Status.PAID, datetime.datetime(2026, 1, 2, tzinfo=UTC), [Line("tea", decimal.Decimal("1.50"))])


@pytest.mark.parametrize(
    ("annotation", "value", "wire"),
    [
        (
            Order,
            ORDER,
            b'{"orderId":7,"status":"paid","madeAt":"2026-01-02T00:00:00Z","lines":[{"itemName":"tea","unitPrice":"1.50"}]}',
        ),
        (
            Page[Line],
            Page([Line("a", decimal.Decimal(1))]),
            b'{"pageItems":[{"itemName":"a","unitPrice":"1"}],"nextPage":null}',
        ),
        (Note, {"note_text": "x"}, b'{"noteText":"x"}'),
        (Pair, Pair(1, "b"), b'[1,"b"]'),
        (Cash | Card, Card("4"), b'{"kind":"card","cardNumber":"4"}'),
        (Cash | Card | None, None, b"null"),
        (Tree, Tree("a", [Tree("b")]), b'{"nodeName":"a","childNodes":[{"nodeName":"b","childNodes":[]}]}'),
        (Person, Person(first_name="Ann"), b'{"firstName":"Ann","years":18}'),
        (list[Person | None], [None, Person(first_name="Bo")], b'[null,{"firstName":"Bo","years":18}]'),
        (dict[str, Note], {"snake_key": {"note_text": "x"}}, b'{"snake_key":{"noteText":"x"}}'),
        (tuple[int, Note], (1, {"note_text": "x"}), b'[1,{"noteText":"x"}]'),
        (decimal.Decimal, decimal.Decimal("0.10"), b'"0.10"'),
        (Literal["a", 2], 2, b"2"),
    ],
)
def test_values_travel_in_camel_case_and_come_back_the_same(annotation: Any, value: Any, wire: bytes) -> None:
    assert both_ways(annotation, value) == (wire, value)


def test_what_was_not_declared_does_not_get_out() -> None:
    router = Router()

    @router.query
    async def note() -> Note:
        return {"note_text": "x"}

    output = router.procedures()["note"].output
    assert output is not None
    assert output.encode({"note_text": "x", "password": "y"}) == b'{"noteText":"x"}'


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"orderId":"x"}', "Expected `int`, got `str` - at `$.orderId`"),
        (b"{}", "Object missing required field `orderId`"),
        (b'{"order_id":1}', "Object missing required field `orderId`"),
        (b'{"orderId":1,"status":"lost"}', "Invalid enum value 'lost' - at `$.status`"),
    ],
)
def test_a_refused_input_is_told_in_the_names_of_the_wire(raw: bytes, message: str) -> None:
    router = Router()

    @router.mutation
    async def put(order: Order, /) -> None: ...

    codec = router.procedures()["put"].input
    assert codec is not None
    with pytest.raises(RpcError) as caught:
        codec.decode(raw)
    assert (caught.value.code, caught.value.message) == ("BAD_REQUEST", message)


def test_pydantic_says_what_is_wrong_and_where_and_nothing_more() -> None:
    router = Router()

    @router.mutation
    async def put(person: Person, /) -> None: ...

    codec = router.procedures()["put"].input
    assert codec is not None
    with pytest.raises(RpcError, match=r"\AInput should be greater than or equal to 0 - at `years`\Z"):
        codec.decode(b'{"firstName":"x","years":-1}')


@pytest.mark.parametrize("deep", [b"[" * 100_000, b"[" * 65 + b"]" * 65, b'{"a":' * 5_000])
def test_deep_nesting_is_refused_before_it_is_read(deep: bytes) -> None:
    router = Router()

    @router.query
    async def any_thing(thing: Any, /) -> None: ...

    codec = router.procedures()["anyThing"].input
    assert codec is not None
    with pytest.raises(RpcError, match="nested deeper"):
        codec.decode(deep)


def test_brackets_inside_texts_are_no_nesting() -> None:
    assert both_ways(str, '["' * 1_000)[1] == '["' * 1_000


class Shop:
    """A router with a bit of everything, made anew for each test."""

    def __init__(self) -> None:
        authed = Base(Context).use(signed_in)
        orders = Router(base=Base(Context))

        @orders.mutation(base=authed, meta={"scope": "write"})
        async def update_status(ctx: UserContext, order_id: int, status: Status = Status.NEW) -> str:
            """Changes the status."""
            return f"{ctx.user} {order_id} {status.value}"

        @orders.query
        async def find(word: str = "nothing", /) -> str:
            return word

        @orders.query
        async def broken() -> int:
            return "x"  # type: ignore[return-value]  # the output check has to notice

        @orders.query
        async def explodes() -> int:
            raise ZeroDivisionError("a secret")

        @orders.subscription
        async def changes(last_event_id: str | None = None) -> AsyncIterator[Tracked[int]]:
            for number in range(int(last_event_id or 0), 3):
                yield tracked(str(number + 1), number)

        self.orders = orders
        self.root = Router(orders=orders)


async def test_a_direct_call_passes_through_middleware_and_checks() -> None:
    caller = Shop().root.caller(Context("ann"))
    assert await caller.orders.update_status(order_id=7, status=Status.PAID) == "ann 7 paid"
    assert await caller.orders.update_status(7) == "ann 7 new"
    assert await caller.orders.find() == "nothing"


async def test_middleware_refuses_before_the_input_is_looked_at() -> None:
    with pytest.raises(RpcError) as caught:
        await Shop().root.caller(Context()).orders.update_status(order_id="x")
    assert caught.value.code == "UNAUTHORIZED"


async def test_wrong_arguments_are_bad_requests_in_direct_calls_too() -> None:
    with pytest.raises(RpcError, match=r"Expected `int`, got `str` - at `\$.orderId`") as caught:
        await Shop().root.caller(Context("ann")).orders.update_status(order_id="x")
    assert caught.value.code == "BAD_REQUEST"
    with pytest.raises(TypeError, match="takes order_id, status"):
        Shop().root.caller(Context("ann")).orders.update_status(color=1)


async def test_a_result_of_another_type_is_the_servers_fault() -> None:
    with pytest.raises(RpcError, match="Output validation failed") as caught:
        await Shop().root.caller(Context()).orders.broken()
    assert caught.value.code == "INTERNAL_SERVER_ERROR"


async def test_an_unforeseen_exception_is_not_shown_and_stays_as_the_cause() -> None:
    with pytest.raises(RpcError, match=r"\AInternal server error\Z") as caught:
        await Shop().root.caller(Context()).orders.explodes()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_subscription_is_an_async_iterator_that_resumes() -> None:
    caller = Shop().root.caller(Context())
    assert [event async for event in caller.orders.changes(last_event_id="1")] == [tracked("2", 1), tracked("3", 2)]


async def test_the_decorated_function_stays_a_function() -> None:
    router = Router()

    @router.query
    async def double(number: int) -> int:
        return number * 2

    assert await double(4) == 8


def test_metadata_docstrings_and_paths_are_kept() -> None:
    procedures = Shop().root.procedures()
    assert next(iter(procedures)) == "orders.updateStatus"
    assert procedures["orders.updateStatus"].meta == {"scope": "write"}
    assert procedures["orders.updateStatus"].doc == "Changes the status."


def test_routers_are_merged_side_by_side() -> None:
    merged = Router()
    merged.merge(Shop().root)

    @merged.query
    async def hello() -> str:
        return "world"

    assert {"orders.find", "hello"} < set(merged.procedures())


def test_clashes_are_refused_at_declaration() -> None:
    shop = Shop()
    with pytest.raises(DeclarationError, match="'find' is declared twice; a procedure has that name already"):
        shop.orders.include("find", Router())
    with pytest.raises(DeclarationError, match="'orders' is declared twice; a router has that name"):
        shop.root.merge(Router(orders=Router()))
    with pytest.raises(DeclarationError, match="would contain itself"):
        shop.orders.include("root", shop.root)
    for name in ("then", "a.b", "a,b", "a/b", ""):
        with pytest.raises(DeclarationError, match="cannot be the name"):
            Router().include(name, Router())


def test_what_cannot_be_served_is_refused_at_declaration() -> None:
    router = Router(base=Base(Context))

    async def untyped(thing) -> None: ...  # type: ignore[no-untyped-def]  # that is the point

    async def says_nothing(thing: int): ...  # type: ignore[no-untyped-def]  # that is the point

    def blocking() -> int:
        return 1

    async def foreign(thing: Exception) -> None: ...

    async def variadic(*things: int) -> None: ...

    async def mixed(thing: int, /, other: int) -> None: ...

    async def clashing(order_id: int, orderId: int) -> None: ...  # noqa: N803  # that is the point

    async def other_context(ctx: UserContext) -> None: ...

    for function, sentence in (
        (untyped, "has no type"),
        (says_nothing, "says nothing of what it returns"),
        (blocking, "has to be an async function"),
        (foreign, "cannot travel"),
        (variadic, "no form on the wire"),
        (mixed, "is the whole input"),
        (clashing, "orderId"),
        (other_context, "wants a UserContext, and its base provides a Context"),
    ):
        with pytest.raises(DeclarationError, match=sentence):
            router.query(function)
    with pytest.raises(DeclarationError, match="async generator"):
        router.subscription(one_value)


async def one_value() -> int:
    return 1


def test_constraints_of_msgspec_hold() -> None:
    router = Router()

    @router.query
    async def page(size: Annotated[int, msgspec.Meta(le=100)] = 10) -> None: ...

    codec = router.procedures()["page"].input
    assert codec is not None
    with pytest.raises(RpcError, match="Expected `int` <= 100"):
        codec.decode(b'{"size":101}')


def test_every_code_has_the_number_and_status_of_the_table() -> None:
    assert len(CODES) == 21
    assert {name: CODES[name] for name in ("PARSE_ERROR", "BAD_GATEWAY", "CLIENT_CLOSED_REQUEST")} == {
        "PARSE_ERROR": (-32700, 400),
        "BAD_GATEWAY": (-32603, 502),
        "CLIENT_CLOSED_REQUEST": (-32099, 499),
    }
    with pytest.raises(DeclarationError, match="no error code"):
        RpcError("TEAPOT")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("event_id", ["", "a\nb", "a\rb", "a\0"])
def test_an_id_that_would_break_the_stream_is_refused(event_id: str) -> None:
    with pytest.raises(ValueError, match="id of a tracked event"):
        tracked(event_id, 1)
