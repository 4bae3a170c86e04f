"""``display(...)``: show objects in their rich form, in order with what is printed.

Refuses to know: what forms there are, where they are shown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from isthmus.jobs import current_job
from isthmus.mime import MimeBundle, bundle_of, raw_bundle


def display(
    *objects: Any,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    raw: bool = False,
) -> None:
    """Show *objects*, one after the other, as rich as each can be.

    In a cell, and in tasks and threads that it has started, each one becomes a ``Display`` event
    and part of the result's ``displays``. Elsewhere its plain text is printed. It is in the prelude
    of every session, and can be imported as ``isthmus.display``.

    Arguments:
        objects: Anything; ``_repr_mimebundle_``, ``_repr_html_`` and their like are asked for.
        include: MIME types wanted; None wants all.
        exclude: MIME types not wanted.
        metadata: What to add to each one's metadata.
        raw: The objects are dicts by MIME type, to be shown as they are.

    Raises:
        TypeError: *raw* is true and an object is no such dict; those before it have been shown.

    Threads: any. What goes wrong in an object's own methods is said on ``sys.stderr``.
    """
    for each in objects:
        bundle = raw_bundle(each) if raw else bundle_of(each, include, exclude)
        if metadata:
            bundle = MimeBundle(
                bundle.data,
                {**bundle.metadata, **raw_bundle({}, metadata).metadata},
                bundle.problems,
            )
        _show(bundle)


def _show(bundle: MimeBundle) -> None:
    job = current_job.get()
    if job is None:
        print(bundle.text)
        return
    output = job.output or job.open_output()
    output.display(bundle)
    for problem in bundle.problems:
        output.write_to("stderr", f"{problem}\n")
