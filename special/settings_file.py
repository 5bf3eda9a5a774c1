"""Settings as a TOML file: what is in force, with where it comes from and what it is in comments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ByteSize

from special.settings import Settings

_UNITS = {"TiB": 40, "GiB": 30, "MiB": 20, "KiB": 10}


def commented_toml(chosen: Settings, origins: Mapping[str, str]) -> str:
    """A file that `--config` reads as these settings. Defaults are commented out; `origins` says of others whence."""
    lines = ["# The settings in force."]
    for name, field in Settings.model_fields.items():
        value, origin = getattr(chosen, name), origins.get(name)
        lines += ["", f"# {field.description}", f"# From {origin}." if origin else "# The default."]
        written = f"{name} = {'' if value is None else _toml(value)}".rstrip()
        lines.append(written if origin and value is not None else f"# {written}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    match value:
        case ByteSize():
            for unit, power in _UNITS.items():
                if value and value % (1 << power) == 0:
                    return f'"{value >> power}{unit}"'
            return str(int(value))
        case BaseModel():
            return f"{{ {', '.join(f'{name} = {_toml(part)}' for name, part in value if part is not None)} }}"
        case tuple() | list():
            return f"[{', '.join(map(_toml, value))}]"
        case str() | Path():
            # A JSON string is a basic string of TOML, but for DEL, which TOML wants escaped.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return json.dumps(value)
