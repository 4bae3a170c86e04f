"""The rich form of an object, whatever its methods do."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import msgspec
import pytest

from isthmus import CellResult, MimeBundle, display
from isthmus.mime import METHODS, bundle_of, raw_bundle, rich_bundle

requirement = pytest.mark.requirement


class Shown:
    """Has the methods that it is given."""

    def __init__(self, **methods: Any) -> None:
        for name, given in methods.items():
            setattr(self, name, given)

    def __repr__(self) -> str:
        return "Shown()"


PNG = b"\x89PNG\r\n\x1a\n"


@requirement("6.1-display")
def test_each_method_gives_its_type() -> None:
    methods = {name: (lambda name=name: f"by {name}") for name in METHODS}
    bundle = bundle_of(Shown(**methods))
    assert bundle.data == {
        **{kind: f"by {name}" for name, kind in METHODS.items()},
        "text/plain": "Shown()",
    }
    assert (bundle.metadata, bundle.problems) == ({}, ())


@requirement("6.1-display")
def test_a_bundle_method_comes_first_and_the_others_fill_in() -> None:
    called: list[str] = []

    def give_bundle(include: Any = None, exclude: Any = None) -> Any:
        return {"text/html": "bundle", "text/plain": "plain", "image/png": None}, {"a": {"b": 1}}

    def not_reached() -> str:
        called.append("html")
        return "method"

    shown = Shown(
        _repr_mimebundle_=give_bundle,
        _repr_html_=not_reached,
        _repr_png_=lambda: (bytearray(PNG), {"width": 3}),
    )
    bundle = bundle_of(shown)
    assert bundle.data == {"text/html": "bundle", "text/plain": "plain", "image/png": PNG}
    assert bundle.metadata == {"a": {"b": 1}, "image/png": {"width": 3}}
    assert called == []
    assert bundle.text == "plain"


@requirement("6.1-display")
def test_types_can_be_left_in_and_out() -> None:
    asked: list[Any] = []

    def give_bundle(include: Any, exclude: Any) -> dict[str, str]:
        asked.append((include, exclude))
        return {"text/latex": "$x$", "text/html": "<b>"}

    shown = Shown(_repr_mimebundle_=give_bundle, _repr_svg_=lambda: "<svg>")
    assert bundle_of(shown, include=["text/html"]).data == {"text/html": "<b>"}
    assert bundle_of(shown, exclude=["text/html", "text/plain"]).data == {
        "text/latex": "$x$",
        "image/svg+xml": "<svg>",
    }
    assert asked == [(["text/html"], None), (None, ["text/html", "text/plain"])]


def _raise(error: BaseException) -> Any:
    def method(**_: Any) -> Any:
        raise error

    return method


@requirement("6.1-display")
@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        ({"_repr_html_": _raise(ValueError("no"))}, "_repr_html_ of Shown raised ValueError: no"),
        ({"_repr_html_": _raise(NotImplementedError())}, None),
        ({"_repr_html_": lambda: None}, None),
        ({"_repr_html_": lambda: (None, {})}, None),
        ({"_repr_html_": "not callable"}, None),
        ({"_repr_html_": lambda: 5}, "_repr_html_ of Shown gave a int as text/html"),
        ({"_repr_html_": lambda: b"x"}, "_repr_html_ of Shown gave a bytes as text/html"),
        ({"_repr_json_": object}, "_repr_json_ of Shown gave application/json that"),
        ({"_repr_html_": lambda: ("", {"": object()})}, "gave metadata that JSON cannot hold"),
        ({"_repr_mimebundle_": lambda **_: "text"}, "_repr_mimebundle_ of Shown gave a str inst"),
        ({"_repr_mimebundle_": lambda **_: ({}, 5)}, "gave a tuple instead of a dict"),
        ({"_repr_mimebundle_": lambda **_: {5: "x", "a": ""}}, None),
        ({"_repr_mimebundle_": lambda **_: {"a": object()}}, "gave a that JSON cannot hold"),
        ({"_repr_mimebundle_": lambda include: {}}, "_repr_mimebundle_ of Shown raised TypeError"),
        ({"_repr_mimebundle_": _raise(KeyError("k"))}, "raised KeyError: 'k'"),
    ],
)
def test_what_a_method_does_wrong_costs_its_own_form_only(
    methods: dict[str, Any], problem: str | None
) -> None:
    bundle = bundle_of(Shown(**methods, _repr_markdown_=lambda: "*x*"))
    assert bundle.data["text/markdown"] == "*x*"
    assert bundle.data["text/plain"] == "Shown()"
    if problem is None:
        assert bundle.problems == ()
    else:
        (said,) = bundle.problems
        assert problem in said


class AnswersAll:
    """Has an attribute of any name."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: "an answer"

    def __repr__(self) -> str:
        return "AnswersAll()"


class RaisesAll:
    """Raises for any attribute."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        return "RaisesAll()"


class RaisesForOne:
    """Raises for one of the methods."""

    @property
    def _repr_html_(self) -> Any:
        raise RuntimeError

    def __repr__(self) -> str:
        return "RaisesForOne()"


class Rich:
    """Rich, as an instance."""

    def _repr_html_(self) -> str:
        return "<b>"

    def __repr__(self) -> str:
        return "Rich()"


@requirement("6.1-display")
@pytest.mark.parametrize(
    "make",
    [AnswersAll, RaisesAll, RaisesForOne, lambda: Rich, mock.Mock, int, str, list, lambda: None],
)
def test_what_has_no_rich_form_has_its_repr(make: Any) -> None:
    value = make()
    bundle = bundle_of(value)
    assert (bundle.data, bundle.problems) == ({"text/plain": repr(value)}, ())
    assert rich_bundle(value) is None


@requirement("6.1-display")
def test_a_repr_that_raises_is_survived() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    assert "whose __repr__ raised ValueError" in bundle_of(Bad()).text


@requirement("6.1-display")
def test_the_form_of_a_value_never_raises() -> None:
    assert rich_bundle(Rich()) == bundle_of(Rich())
    for method in ("_repr_html_", "_repr_mimebundle_"):
        bundle = rich_bundle(Shown(**{method: _raise(SystemExit(3))}))
        assert bundle is not None
        assert (bundle.text, bundle.problems) == ("Shown()", ("Shown raised SystemExit: 3",))


@requirement("6.1-display")
def test_a_bundle_is_a_copy_that_json_can_hold() -> None:
    @dataclasses.dataclass
    class Point:
        x: int

    class Loud(str):
        def __str__(self) -> str:
            raise AssertionError

    rows = [1, {"a": Point(2)}]
    shown = Shown(_repr_json_=lambda: rows, _repr_png_=lambda: PNG, _repr_html_=lambda: Loud("h"))
    bundle = bundle_of(shown)
    rows.append(3)
    assert bundle.data["application/json"] == [1, {"a": {"x": 2}}]
    assert type(bundle.data["text/html"]) is str
    decoded = msgspec.json.decode(msgspec.json.encode(bundle))
    assert decoded["data"]["image/png"] == "iVBORw0KGgo="
    assert bundle.size == sum(map(len, ["[1, {'a': {'x': 2}}]", PNG, "h", "Shown()"]))


@requirement("6.1-display")
def test_a_raw_bundle_is_taken_as_it_is() -> None:
    assert raw_bundle({"text/html": "<b>"}, {"a": 1}).metadata == {"a": 1}
    for wrong in ("text", 5, {"a": object()}):
        with pytest.raises(TypeError):
            raw_bundle(wrong)


@requirement("6.1-display")
def test_without_a_cell_display_prints_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    display(Rich(), 5)
    display(Rich(), exclude=["text/plain"])
    display({"text/html": "<i>"}, raw=True)
    display()
    assert capsys.readouterr().out == "Rich()\n5\n<text/html>\n<text/html>\n"
    assert MimeBundle({}).text == "<nothing>"


@requirement("results")
def test_a_result_gives_the_forms_of_its_value_when_asked() -> None:
    result = CellResult(1, "async", value=Rich())
    assert result.mime_bundle().data == {"text/html": "<b>", "text/plain": "Rich()"}
    assert result.mime_bundle(include=["text/html"]).data == {"text/html": "<b>"}
