"""The log: what happened, one line for each record and, where asked for, one for each request.

    brief     failures alone, in plain words: for a terminal
    json      everything, one JSON object a line: for machines
    logfmt    the same as key=value pairs: for machines and for eyes

What comes from clients and stores is escaped, so that one line cannot look like two, and secrets are removed:
a store that refuses a signature answers with all that was signed, a session's token included.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Final, TextIO

LOGGER: Final = "special.requests"
"""The logger of one line for each request."""
LONGEST: Final = 2000
"""Maximum number of characters of one value that are logged."""

_requests = logging.getLogger(LOGGER)
_SECRETS: Final = re.compile(
    r"(?P<query>\b(?:x-amz-[\w-]+|awsaccesskeyid|signature|sig|token|access_token|password)=)[^&\s\"'<>]+"
    r"|(?P<xml><(?P<tag>AWSAccessKeyId|StringToSign\w*|SignatureProvided|CanonicalRequest\w*|Token-0)>).*?(?=</(?P=tag)>|$)"
    r"|(?P<field>\b(?:proxy-)?(?:authorization|cookie|set-cookie|x-amz-[\w-]+)[\"']?\s*:\s*)[^\r\n]+"
    r"|(?P<bearer>\bbearer\s+)[\w.~+/=-]+"
    r"|(?P<jwt>\bey)J[\w-]+\.[\w-]+\.[\w-]*",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BARE: Final = re.compile(r"[\w.,:/%+@~!*()$&;?#\[\]-]+", re.ASCII)
"""What needs no quotes in logfmt."""


def setup(form: str, stream: TextIO) -> None:
    """Write the log of this process to a stream, in one of the three forms."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter({"json": Json, "logfmt": Logfmt}.get(form, Brief)())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("special").setLevel(logging.INFO)
    _requests.setLevel(logging.WARNING if form == "brief" else logging.INFO)


def wanted() -> bool:
    """Whether there is a line for each request."""
    return _requests.isEnabledFor(logging.INFO)


def request(level: int, fields: dict[str, Any], *, failure: BaseException | None = None) -> None:
    """Log the outcome of one request. `failure` adds its traceback."""
    if _requests.isEnabledFor(level):
        # Made here, for `log` would look for the caller's file and line first, which takes as long as all the rest.
        raised = (type(failure), failure, failure.__traceback__) if failure is not None else None
        made = _requests.makeRecord(LOGGER, level, "", 0, "request", (), raised, extra={"fields": fields})
        _requests.handle(made)


def clean(text: str) -> str:
    """A text without secrets, and of at most `LONGEST` characters."""
    shown = _SECRETS.sub(lambda it: f"{next(filter(None, (it[n] for n in _SECRETS_NAMES)))}…", text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


_SECRETS_NAMES: Final = ("query", "xml", "field", "bearer", "jwt")


def escape(text: str) -> str:
    """A text with control characters, line ends and lone surrogates as escape sequences."""
    return _CONTROL.sub(lambda it: f"\\u{ord(it[0]):04x}" if ord(it[0]) > 255 else f"\\x{ord(it[0]):02x}", text)


def _fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    """The fields of a record, in the order in which they are written."""
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, Any] = {"time": moment, "level": record.levelname.lower()}
    if record.name == LOGGER:
        fields |= record.__dict__["fields"]
    else:
        fields |= {"logger": record.name, "message": clean(record.getMessage())}
    if record.exc_info:
        fields["traceback"] = clean(formatter.formatException(record.exc_info))
    return fields


class Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        # In ASCII: no terminal, pipe or log store can take anything in it for an end of line.
        return json.dumps(_fields(record, self), separators=(",", ":"))


class Logfmt(logging.Formatter):
    """Pairs of key and value; what is not a plain word is in quotes, as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={_word(value)}" for name, value in _fields(record, self).items())


def _word(value: Any) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


class Brief(logging.Formatter):
    """A moment, a level and a sentence; of requests only those that failed."""

    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        if record.name == LOGGER:
            fields = record.__dict__["fields"]
            said = "{method} {path}: {outcome}: {error}".format_map({"error": "", **fields})
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        line = f"{moment} {record.levelname} {escape(clean(said))}"
        if record.exc_info:
            line += "\n" + "\n".join(map(escape, clean(self.formatException(record.exc_info)).splitlines()))
        return line
