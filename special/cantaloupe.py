"""Settings of a Cantaloupe as ours: a `cantaloupe.properties` of version 4 or 5 becomes a file for `--config`. Pure.

Beside each setting stands the property that it comes from. What the site does otherwise from then on is named with the
reason; properties of Java, of its processors and of sources and caches that are not used are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from special.errors import ConfigurationError

_SAME: Final = {
    "http.host": "host",
    "http.port": "port",
    "base_uri": "base_url",
    "slash_substitute": "slash_substitute",
    "max_pixels": "max_area",
    "processor.jpg.quality": "jpeg_quality",
    "processor.dpi": "pdf_dpi",
    "cache.client.max_age": "max_age_s",
}
"""Properties whose value is a setting's value as it is."""
_VARIABLES: Final = {
    "S3Source.endpoint": "AWS_ENDPOINT_URL",
    "S3Source.region": "AWS_REGION",
    "AzureStorageSource.account_name": "AZURE_STORAGE_ACCOUNT_NAME",
}
_SECRETS: Final = {
    "S3Source.access_key_id": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "AzureStorageSource.account_key": "AZURE_STORAGE_ACCOUNT_KEY",
}
_OTHERWISE: Final = {
    "https.enabled": "TLS comes from a proxy in front.",
    "endpoint.iiif.1.enabled": "Version 1 of the Image API is not served.",
    "endpoint.iiif.restrict_to_sizes": "Only `/thumbs/` is restricted to its sizes.",
    "endpoint.admin.enabled": "`status = true` shows a page at `/status`; settings are changed in this file alone.",
    "endpoint.api.enabled": "Images are purged by `special forget`, or by DELETE with `admin_token_file`.",
    "HttpSource.BasicLookupStrategy.auth.basic.username": "No password is sent to a web server.",
    "cache.server.derivative.enabled": "`special derive` makes stored sizes beforehand (`special docs derive`); "
    "`store_on_miss = true` stores them on the first request.",
    "overlays.BasicStrategy.enabled": "Hooks draw over images (`special docs catalogue`).",
    "log.access.ConsoleAppender.enabled": '`log_format = "json"` writes a line for each request to standard error.',
}
"""What is done in another way, or not at all, of what such properties ask for."""
_RESTRICTED: Final = """
# delegate_script.enabled
# The script is not run: access rules (`special docs restrict`), a catalogue or hooks do its work (`special docs
# catalogue`). What it restricts is not known here: all images are restricted until you change this.
[[rules]]
identifiers = "*"
max_unauthorised = 0
"""
_FILES: Final = ("log.access.FileAppender.enabled", "log.access.RollingFileAppender.enabled")


def translate(text: str) -> str:
    """The settings that a `cantaloupe.properties` asks for, as TOML. Secrets are left out.

    Where a delegate script may have restricted images, all are restricted.

    Raises `ConfigurationError` for a text that names no source of images.
    """
    given = {name: value for name, value in _properties(text) if value}
    if not given.keys() & {"source.static", "source.delegate"}:
        raise ConfigurationError("this is no cantaloupe.properties of version 4 or 5: it has no source.static")
    lines = ["# From a cantaloupe.properties. `special config --config FILE` shows all that is in force."]
    for names, written in _written(given):
        lines += ["", f"# {', '.join(names)}", written]
    rules = _RESTRICTED if given.get("delegate_script.enabled", "false") != "false" else ""
    return "\n".join(lines) + "\n" + rules


def _written(given: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """What is written in the file, each with the properties that it comes from."""
    yield from _source(given)
    for name, setting in _SAME.items():
        value = given.get(name)
        if (name, value) == ("max_pixels", "0"):
            yield [name], "# The default of `max_area` holds: there is always a limit."
        elif value is not None:
            yield [name], f"{setting} = {value if value.isdigit() else _quoted(value)}"
    if not re.fullmatch(r"1(\.0*)?|0\.\d+", given.get("max_scale", "1")):
        yield ["max_scale"], "upscaling = true"
    if given.get("cache.server.source") == "FilesystemCache" or "CacheStrategy" in given.values():
        name = "FilesystemCache.pathname"
        folder = given.get(name, "/var/cache/cantaloupe").rstrip("/")
        yield [name], f"volume = {_quoted(f'{folder}-special')}"
        yield ["cache.server.source.ttl_seconds"], '# volume_size = "10GiB", the default: by size, not by age'
    for name, variable in _VARIABLES.items():
        if name in given and _is_used(given, name):
            yield [name], f"# The variable {variable}={_quoted(given[name])}"
    for name, variables in _SECRETS.items():
        if name in given and _is_used(given, name):
            yield [name], f"# The variables {variables}, or a profile."
    for name, reason in _OTHERWISE.items():
        if given.get(name, "false") != "false" and _is_used(given, name):
            yield [name], f"# {reason}"
    files = [name for name in _FILES if given.get(name) == "true"]
    if files:
        yield files, "# " + _OTHERWISE["log.access.ConsoleAppender.enabled"]


def _source(given: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """Where the masters are, and which keys they have."""
    kind = given.get("source.static", "")
    basic = f"{kind}.BasicLookupStrategy"
    names, root = [f"{basic}.path_prefix", f"{basic}.path_suffix"], ""
    match kind:
        case "HttpSource":
            names = [f"{basic}.url_prefix", f"{basic}.url_suffix"]
        case "S3Source":
            names = [f"{basic}.bucket.name", *names]
            root = f"s3://{given.get(names[0], 'BUCKET')}/"
        case "AzureStorageSource":
            names = [f"{kind}.container_name"]
            root = f"az://{given.get(names[0], 'CONTAINER')}/"
    elsewhere = {
        "source.delegate": "true",
        "source.static": "JdbcSource",
        f"{kind}.lookup_strategy": "ScriptLookupStrategy",
    }
    if asked := [name for name, value in elsewhere.items() if given.get(name) == value]:
        said = "Key templates, a table, a web service or hooks say where masters are (`special docs catalogue`)."
        yield asked, f"# {said}"
        return
    prefix = "".join(given.get(name, "") for name in names if name.endswith("prefix"))
    suffix = "".join(given.get(name, "") for name in names if name.endswith("suffix"))
    # There a prefix is text before the identifier, here a source is a folder.
    folder, slash, stem = f"{root}{prefix}".rpartition("/")
    used = ["source.static", *(name for name in names if name in given)]
    yield used, f"source = {_quoted(folder + slash or '.')}"
    if stem or suffix:
        yield used[1:], f"keys = [{_quoted(f'{stem}{{id}}{suffix}')}]"


def _is_used(given: Mapping[str, str], name: str) -> bool:
    """Whether a property is of no source, or of the one that is used."""
    owner = name.partition(".")[0]
    return not owner.endswith("Source") or owner == given.get("source.static") or given.get("source.delegate") == "true"


def _quoted(text: str) -> str:
    """A string of TOML, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _properties(text: str) -> Iterator[tuple[str, str]]:
    """Names and values, in the form of `java.util.Properties`, a later one of a name last."""
    joined = re.sub(r"(?m)(?<!\\)((?:\\\\)*)\\\r?\n[ \t]*", r"\1", text)
    for line in map(str.strip, joined.splitlines()):
        if line and line[0] not in "#!":
            found = re.fullmatch(r"((?:\\.|[^\\\s:=])+)[ \t]*[:=]?[ \t]*(.*)", line)
            if found is not None:
                yield _unescaped(found[1]), _unescaped(found[2])


def _unescaped(text: str) -> str:
    plain = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
    escape = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
    return escape.sub(lambda it: chr(int(it[1], 16)) if it[1] else plain.get(it[2], it[2]), text)
