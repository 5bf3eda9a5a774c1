"""Faces of packages whose modules are imported when a name of theirs is first asked for (PEP 562).

For packages of which much is used by few: a decoder process needs spans, but no store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module


def later(package: str, modules: dict[str, tuple[str, ...]]) -> Callable[[str], object]:
    """The `__getattr__` of a package: `modules` says which names each of its modules has."""
    module_of = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
