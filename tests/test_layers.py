"""The import rules that the import linter cannot express: packages by their faces, settings by few."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(".".join(it.relative_to(ROOT).parts[:-1]) for it in ROOT.glob("special/**/__init__.py"))
SETTINGS = {"special", "cli", "composition", "preflight", "settings_file", "web.server", "web.app", "derive.run"}
"""The modules that may know all settings."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package_of(module: str) -> str:
    return max((it for it in PACKAGES if module == it or module.startswith(f"{it}.")), key=len)


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each import of ours in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "special":
            yield from ((node.module, it.name) for it in node.names)
        elif isinstance(node, ast.Import):
            yield from ((it.name, "") for it in node.names if it.name.split(".")[0] == "special")


def exported(package: str) -> set[str]:
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


FILES = sorted(ROOT.glob("special/**/*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_packages_are_imported_by_their_faces(path: Path):
    mine = package_of(module_of(path))
    wrong = []
    for module, name in imports(path):
        package = package_of(module)
        if package in ("special", mine) or mine.startswith(f"{package}.") or f"{module}.{name}" in PACKAGES:
            continue
        if module != package or name not in exported(package):
            wrong.append(f"from {module} import {name}")
    assert wrong == []


def test_settings_are_known_to_few():
    know = {
        module_of(path).removeprefix("special.")
        for path in FILES
        if any("special.settings" in (module, f"{module}.{name}") for module, name in imports(path))
    }
    assert know - SETTINGS == set()
