"""The rich form of an object: one text or picture for each MIME type that it can be shown as.

Owns the protocol (``_repr_mimebundle_``, ``_repr_html_`` and their like; names and meaning are
IPython's, https://ipython.readthedocs.io/en/stable/config/integrating.html) and the bundle.
Refuses to know: cells, events, where a bundle is shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from isthmus.tracebacks import safe_repr, safe_str

METHODS: dict[str, str] = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_pdf_": "application/pdf",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript",
}
"""The method for each type, in the order in which they are asked."""

_CANARY = "_isthmus_canary_method_should_not_exist_"
"""An object that has this answers to every name, so that its other answers mean nothing."""

_BINARY = frozenset({"image/png", "image/jpeg", "application/pdf"})

_NOT_RICH = frozenset(
    {int, float, complex, bool, str, bytes, type(None), list, tuple, dict, set, frozenset}
)
"""Types whose values have no form but their ``repr``: what most cells end with."""


class MimeBundle(msgspec.Struct, frozen=True):
    """An object in the forms in which it can be shown.

    Attributes:
        data: By MIME type: a ``str``, ``bytes`` (base64 in JSON), or what JSON can hold.
        metadata: What the object says about them (sizes, say), mostly by MIME type.
        problems: What went wrong in the making, in words.
    """

    data: dict[str, Any]
    metadata: dict[str, Any] = {}
    problems: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Characters and bytes of the data, roughly for what is neither."""
        return sum(
            len(it) if isinstance(it, str | bytes) else len(repr(it)) for it in self.data.values()
        )

    @property
    def text(self) -> str:
        """What a terminal shows: the plain text, or the types that there are."""
        plain = self.data.get("text/plain")
        return plain if isinstance(plain, str) else f"<{', '.join(self.data) or 'nothing'}>"


def bundle_of(
    value: object,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
) -> MimeBundle:
    """Ask *value* for its forms; ``text/plain`` is its ``repr`` where it gives no other.

    Arguments:
        include: MIME types wanted; None wants all.
        exclude: MIME types not wanted.

    A method that raises an ``Exception``, or gives what it must not, costs its own form only, and
    is named in the bundle's *problems*. One that raises ``NotImplementedError``, or returns None,
    says that there is no such form. Classes, and objects that answer to every name, have their
    ``repr``.

    Threads: any; the methods are code of the object's.
    """
    making = _Making(value, include, exclude)
    if has_methods(value):
        making.ask_for_bundle()
        for name, kind in METHODS.items():
            making.ask(name, kind)
    making.add("text/plain", lambda: safe_repr(value))
    return making.bundle()


def raw_bundle(data: object, metadata: Mapping[str, Any] | None = None) -> MimeBundle:
    """A bundle of *data* that is one already.

    Raises:
        TypeError: *data* is no mapping of MIME types, or holds what JSON cannot.
    """
    making = _Making(data, None, None)
    making.take_bundle("display(raw=True)", (data, metadata or {}))
    if making.problems:
        raise TypeError(making.problems[0])
    return making.bundle()


def has_methods(value: object) -> bool:
    """Whether it makes sense to ask *value* for anything but its ``repr``."""
    if type(value) in _NOT_RICH or inspect.isclass(value):
        return False
    try:
        return getattr(value, _CANARY, None) is None
    except Exception:  # a boundary: __getattr__ of the object
        return False


def rich_bundle(value: object) -> MimeBundle | None:
    """The bundle of *value*, or None where it holds nothing but a ``repr``. Never raises."""
    try:
        names = ("_repr_mimebundle_", *METHODS)
        if has_methods(value) and any(_method(value, name) for name in names):
            return bundle_of(value)
        return None
    except BaseException as error:  # a boundary: the methods are the object's
        problem = f"{type(value).__name__} raised {type(error).__name__}: {safe_str(error)}"
        return MimeBundle({"text/plain": safe_repr(value)}, problems=(problem,))


def _method(value: object, name: str) -> Callable[..., Any] | None:
    """The method *name* of *value*, if it can be had and called."""
    try:
        method = getattr(value, name, None)
    except Exception:  # a boundary: __getattr__ of the object
        return None
    return method if callable(method) else None


class _Making:
    """A bundle on its way."""

    def __init__(
        self,
        value: object,
        include: Collection[str] | None,
        exclude: Collection[str] | None,
    ) -> None:
        self._value = value
        self._include = include
        self._exclude = exclude
        self._data: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self.problems: list[str] = []

    def bundle(self) -> MimeBundle:
        return MimeBundle(self._data, self._metadata, tuple(self.problems))

    def ask_for_bundle(self) -> None:
        """Call ``_repr_mimebundle_``, which may give all forms at once."""
        name = "_repr_mimebundle_"
        method = _method(self._value, name)
        if method is not None:
            given = self._call(name, lambda: method(include=self._include, exclude=self._exclude))
            if given is not None:
                self.take_bundle(name, given)

    def take_bundle(self, source: str, given: object) -> None:
        """Take forms and their metadata from a dict, or from a pair of dicts."""
        data, metadata = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
        if not isinstance(data, Mapping) or not isinstance(metadata, Mapping):
            self._complain(source, f"gave a {type(given).__name__} instead of a dict")
            return
        for kind, form in data.items():
            if form is not None and isinstance(kind, str) and self._is_wanted(kind):
                self._put(self._data, source, kind, form)
        for kind, about in metadata.items():
            self._put(self._metadata, source, str(kind), about)

    def ask(self, name: str, kind: str) -> None:
        """Call the method for one type, unless there is that form already."""
        method = _method(self._value, name) if self._is_wanted(kind) else None
        if method is None:
            return
        given = self._call(name, method)
        form, about = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        if form is None:
            return
        allowed = (str, bytes, bytearray, memoryview) if kind in _BINARY else (str,)
        if kind != "application/json" and not isinstance(form, allowed):
            self._complain(name, f"gave a {type(form).__name__} as {kind}")
            return
        self._put(self._data, name, kind, form)
        if about is not None:
            self._put(self._metadata, name, kind, about)

    def add(self, kind: str, make: Callable[[], str]) -> None:
        """Add a form, if it is wanted and not there."""
        if self._is_wanted(kind):
            self._data[kind] = make()

    def _is_wanted(self, kind: str) -> bool:
        if kind in self._data or (self._exclude is not None and kind in self._exclude):
            return False
        return self._include is None or kind in self._include

    def _call(self, name: str, method: Callable[[], Any]) -> Any:
        try:
            return method()
        except NotImplementedError:
            return None
        except Exception as error:  # a boundary: the method is the object's
            self._complain(name, f"raised {type(error).__name__}: {safe_str(error)}")
            return None

    def _put(self, where: dict[str, Any], source: str, kind: str, form: object) -> None:
        try:
            where[kind] = _storable(form)
        except Exception as error:  # a boundary: msgspec asks the object
            what = kind if where is self._data else "metadata"
            self._complain(source, f"gave {what} that JSON cannot hold: {safe_str(error)}")

    def _complain(self, source: str, what: str) -> None:
        self.problems.append(f"{source} of {type(self._value).__name__} {what}")


def _storable(form: object) -> Any:
    """*form* as a value of its own, which an event can carry.

    Raises:
        TypeError: JSON cannot hold it.
    """
    if isinstance(form, str):
        return str.__str__(form)  # of a subclass, a plain one
    if isinstance(form, bytes | bytearray | memoryview):
        return bytes(form)
    return msgspec.to_builtins(form, str_keys=True)
