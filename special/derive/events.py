"""What an object store says of its objects: S3 notifications, as SQS, SNS or EventBridge deliver them. Pure.

An event is a hint that something happened to a key, no more: events come twice, late and in any
order. What is done about one is decided by what the store holds by then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus, urlsplit


@dataclass(frozen=True, slots=True)
class Touched:
    """An object that was written or removed."""

    bucket: str
    key: str


def parse(message: str) -> tuple[Touched, ...]:
    """The objects that a message tells of; none for a test message. Raises `ValueError` for any other text.

    Formats: Amazon S3 User Guide, "Event message structure" (version 2) and "EventBridge event message
    structure"; Amazon SNS wraps the former in `Message`.
    """
    try:
        return tuple(_touched(json.loads(message)))
    except RecursionError:
        raise ValueError("this is no notification of an object store: it is nested too deeply") from None
    except (KeyError, TypeError, AttributeError) as fault:
        raise ValueError(f"this is no notification of an object store ({type(fault).__name__}: {fault})") from None


def below(root: str, touched: Touched) -> str | None:
    """The object's key in the source of that root; None for an object elsewhere."""
    parts = urlsplit(root)
    prefix = parts.path.lstrip("/")
    if (parts.scheme, parts.netloc) != ("s3", touched.bucket) or not touched.key.startswith(prefix):
        return None
    return touched.key[len(prefix) :]


def _touched(document: Any) -> Iterator[Touched]:
    match document:
        case {"Event": "s3:TestEvent"}:
            return
        case {"Type": "Notification", "Message": str(inner)}:
            yield from _touched(json.loads(inner))
        case {"Records": list(records)}:
            for record in records:
                # In these, and only in these, keys are encoded as in a form.
                entry = record["s3"]
                yield Touched(str(entry["bucket"]["name"]), unquote_plus(entry["object"]["key"]))
        case {"detail-type": str(), "detail": dict(detail)}:
            yield Touched(str(detail["bucket"]["name"]), str(detail["object"]["key"]))
        case _:
            raise ValueError("this is no notification of an object store")
