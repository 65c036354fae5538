"""What every file of `blurgen make` says of itself, checked before it is used: anyone may have written it."""

from collections.abc import Mapping
from typing import Any

_DOCUMENT = {"count": int, "kernel_side": int, "seed": int, "exposure": list, "source": dict, "noise": dict}
_CARD = {"licence": dict, "blurgen": str, "range": list, "bad": list}
_LICENCE = ("licence", "author", "source")
# More than any machine makes, and still far from where arithmetic ends.
_MOST = 1 << 53


def check_document(document: Any, where: object) -> dict[str, Any]:
    """Return a plan document that has the form of one; raises ValueError, with `where` it was found, for another."""
    if not isinstance(document, dict) or not _has(document, _DOCUMENT) or not _counts(document["count"]):
        raise ValueError(f"{where} holds no plan of `blurgen make`, or a damaged one")
    parts = [document[name] for name in ("source", "noise", "kernel") if name in document]
    settings = [document[name].get("settings") for name in ("source", "kernel") if isinstance(document.get(name), dict)]
    named = all(isinstance(part, dict) and isinstance(part.get("name"), str) for part in parts)
    if not named or not all(isinstance(one, dict) for one in settings):
        raise ValueError(f"{where} holds a plan whose parts have no name or no settings: it is damaged")
    return document


def check_card(attrs: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Return the attributes of a finished file that have the form of `blurgen make`'s; raises ValueError otherwise."""
    if not _has(attrs, _CARD):
        raise ValueError(f"{where} was not made by `blurgen make`, or is damaged: it does not say how it was made")
    texts = [attrs["licence"].get(name) for name in _LICENCE] + [text for bad in attrs["bad"] for text in _three(bad)]
    span = attrs["range"]
    if not all(isinstance(text, str) for text in texts) or len(span) != 2 or not all(map(_counts, span)):
        raise ValueError(f"{where} does not say as `blurgen make` does whose images it holds, or which are left out")
    return {**attrs, "plan": check_document(attrs.get("plan"), where)}


def _has(table: Mapping[str, Any], form: Mapping[str, type]) -> bool:
    return all(type(table.get(name)) is kind for name, kind in form.items())


def _counts(number: Any) -> bool:
    return type(number) is int and 0 <= number < _MOST


def _three(bad: Any) -> list[Any]:
    return bad if isinstance(bad, list) and len(bad) == 3 else [None]
