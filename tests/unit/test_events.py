"""A fact's identity: equal for equal content, different as soon as any part of it differs."""

from __future__ import annotations

import hashlib

from hypothesis import assume, given
from hypothesis import strategies as st

from oplata.bank.notification import parse
from oplata.domain.events import digest_of
from tests.notifications import TEXTS, SignedNotification, notifications

FIELDS = st.dictionaries(TEXTS, TEXTS, max_size=6)


@given(FIELDS, FIELDS)
def test_only_equal_fields_have_equal_digests(left: dict[str, str], right: dict[str, str]) -> None:
    assert (digest_of(left) == digest_of(right)) == (left == right)


@given(FIELDS.flatmap(lambda fields: st.tuples(st.just(fields), st.permutations(list(fields.items())))))
def test_the_order_of_the_fields_is_nothing(drawn: tuple[dict[str, str], list[tuple[str, str]]]) -> None:
    fields, shuffled = drawn

    assert digest_of(fields) == digest_of(dict(shuffled))


def test_text_cannot_wander_from_a_name_to_its_value_or_to_a_neighbour() -> None:
    sets = [{"ab": "c"}, {"a": "bc"}, {"a": "b", "c": ""}, {"a": "", "b": "c"}, {"a": "1:b1:c"}, {"a1:b": "c"}, {}]

    assert len({digest_of(fields) for fields in sets}) == len(sets)


def test_a_digest_is_what_it_was_when_the_tables_were_filled() -> None:
    """Stored digests must stay comparable: whoever changes this also writes a migration."""
    by_hand = b"6:Amount" + b"3:100" + b"16:" + "Описание".encode() + b"6:" + "чай".encode()

    assert digest_of({"Описание": "чай", "Amount": "100"}) == hashlib.sha256(by_hand).hexdigest()


@given(notifications())
def test_one_fact_in_another_order_or_all_in_strings_is_one_fact(sent: SignedNotification) -> None:
    by_name = sent.in_order(sorted(sent.fields, key=lambda field: field.name))
    variants = [sent, by_name, sent.in_order(by_name.fields[::-1]), sent.all_strings()]

    assert len({parse(variant.body).event().digest for variant in variants}) == 1


@given(notifications(), st.text(min_size=1, max_size=20))
def test_the_password_and_the_token_are_no_part_of_a_fact(sent: SignedNotification, token: str) -> None:
    assume(token.isprintable())
    other = parse(sent.body_with(token)).event()

    assert other == parse(sent.body).event()


@given(notifications(), st.data())
def test_a_fact_differs_as_soon_as_any_signed_field_does(sent: SignedNotification, data: st.DataObject) -> None:
    fields = sent.signed
    name = data.draw(st.sampled_from(sorted(fields)))
    changed = fields | {name: fields[name] + "0"}
    missing = {key: value for key, value in fields.items() if key != name}

    assert len({digest_of(fields), digest_of(changed), digest_of(missing)}) == 3
