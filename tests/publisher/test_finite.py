"""What JSON cannot say is found in every way into JSON, and nothing else is taken for it."""

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from fast_depends.pydantic import PydanticSerializer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, field_serializer
from pydantic.dataclasses import dataclass as pydantic_dataclass

from faststream_outbox.exceptions import InvalidMessageError
from faststream_outbox.publisher.finite import check_finite

NAN, INFINITY = math.nan, math.inf


class Point(BaseModel):
    x: float
    label: str | None = None


class Line(BaseModel):
    points: list[Point]


class WithTexts(BaseModel, ser_json_inf_nan="strings"):
    x: float
    label: str | None = None


class WithConstants(BaseModel, ser_json_inf_nan="constants"):
    x: float


class WithoutIt(BaseModel):
    x: float
    hidden: float = Field(default=NAN, exclude=True)

    @field_serializer("x")
    def none_for_nan(self, value: float) -> float | None:
        return value if math.isfinite(value) else None


@dataclass
class Plain:
    x: Any
    label: str | None = None


@pydantic_dataclass
class Checked:
    x: float


class Struct:
    """Has the anatomy of msgspec's, which is not installed here."""

    __struct_fields__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


def check(body: Any, payload: bytes | None = None) -> None:
    check_finite(body, PydanticSerializer.encode(body) if payload is None else payload)


BAD = [
    {"a": NAN},
    [INFINITY],
    {"a": [{"b": (1, -INFINITY)}]},
    NAN,
    {"text": '\\" NaN', "a": NAN},
    Plain(NAN),
    {"a": Plain({"b": INFINITY})},
    Point(x=NAN),
    Line(points=[Point(x=1), Point(x=-INFINITY)]),
    {"a": [Point(x=NAN)]},
    Plain(Point(x=NAN)),
    RootModel[float](NAN),
    Checked(NAN),
    WithConstants(x=INFINITY),
]


@pytest.mark.parametrize("body", BAD, ids=repr)
def test_a_number_that_json_does_not_have_is_refused(body: Any) -> None:
    with pytest.raises(InvalidMessageError, match=r"body: holds (NaN|-?Infinity), a number that JSON does not have"):
        check(body)


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (Struct(NAN), b'{"x":null}'),
        ([Struct(Struct(INFINITY))], b'[{"x":{"x":null}}]'),
        (Plain(NAN), b'{"x":null,"label":null}'),
        ({"a": {NAN}, "b": None}, b'{"a":[null],"b":null}'),
    ],
    ids=lambda body: type(body).__name__,
)
def test_what_other_encoders_write_as_null_is_refused(body: Any, payload: bytes) -> None:
    with pytest.raises(InvalidMessageError, match=r"body: holds (NaN|Infinity)"):
        check(body, payload)


@pytest.mark.parametrize(("number", "name"), [(NAN, "NaN"), (INFINITY, "Infinity"), (-INFINITY, "-Infinity")])
def test_the_number_is_named(number: float, name: str) -> None:
    for body in ({"a": number}, Point(x=number)):
        with pytest.raises(InvalidMessageError, match=f"body: holds {name}, ") as caught:
            check(body)
        assert caught.value.argument == "body"


GOOD = [
    {"a": "NaN", "b": 'Infinity "NaN\\', "c": "\\", "NaN": None},
    {"a": Decimal("NaN")},
    [None, 1.5, 10**400, True, {"a": ()}],
    "NaN",
    WithTexts(x=NAN),
    WithoutIt(x=NAN),
    Point(x=1),
    Plain(None),
    RootModel[float | None](None),
]


@pytest.mark.parametrize("body", GOOD, ids=lambda body: type(body).__name__)
def test_everything_else_is_taken(body: Any) -> None:
    check(body)


def test_a_deep_body_is_no_trouble() -> None:
    body: Any = None
    for _ in range(200):
        body = [body, "NaN"]
    check(body)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["NaN", "Infinity", '"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def has_constant(payload: bytes) -> bool:
    found: list[str] = []
    json.loads(payload, parse_constant=found.append)
    return bool(found)


@given(values)
def test_it_agrees_with_a_parser(body: Any) -> None:
    payload = PydanticSerializer.encode(body)
    if has_constant(payload):
        with pytest.raises(InvalidMessageError):
            check_finite(body, payload)
    else:
        check_finite(body, payload)
