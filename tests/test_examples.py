"""The pages and examples that are installed are true: loaded by what they are for, or held against the code."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase
from typer.testing import CliRunner

import special
from special.cli import cli
from special.observability import metrics
from special.settings import CONFIG_VARIABLE, Settings, load
from special.web import pages

DOCS = Path(special.__file__).parent / "docs"
EXAMPLES = DOCS / "examples"
PAGES = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
FILES = {
    str(path.relative_to(EXAMPLES)): path.read_text("utf-8")
    for path in sorted(EXAMPLES.rglob("*"))
    if path.suffix != ".pyc" and path.is_file()
}
ROOT = Path(special.__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [block for text in PAGES.values() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
COMMANDS = sorted(
    {
        it
        for block in BLOCKS
        for it in re.findall(r"^(?:[A-Z_]+=\S+ )*(special [a-z].*)$", block.replace("\\\n", ""), re.MULTILINE)
    }
    | set(
        re.findall(
            r"^ExecStart=/opt/special/bin/(special .*)$", "".join([*PAGES.values(), *FILES.values()]), re.MULTILINE
        )
    )
    | set(re.findall(r"`(special [a-z][^`…]*)`", "".join(PAGES.values())))
)
VARIABLES = {name.removeprefix("SPECIAL_") for name in (*map(str.upper, Settings.model_fields), CONFIG_VARIABLE)}
METRICS = {
    family.name
    for collector in vars(metrics).values()
    if isinstance(collector, MetricWrapperBase)
    for family in collector.describe()
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    group = typer.main.get_command(cli)
    words = shlex.split(command.partition(" > ")[0])[1:]
    context = typer.Context(group)
    while isinstance(found := group.get_command(context, words[0]), type(group)) and len(words) > 1:
        group, words = found, words[1:]  # `special volume stat`
    assert found is not None, command
    if words[1:] and "…" not in command:
        found.make_context(words[0], words[1:])


@pytest.mark.service
def test_every_block_of_commands_is_sound_for_a_shell() -> None:
    for block in [*BLOCKS, *re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]:
        subprocess.run(["sh", "-n", "-c", block], check=True)


@pytest.mark.service
def test_what_mount_8_calls_starts_a_mount() -> None:
    (script,) = (block for block in BLOCKS if block.startswith("#!/bin/sh"))
    asked = ["s3://masters", "/srv/masters", "-n", "-o", "rw,config=/etc/special.toml"]
    printed = ["sh", "-c", script.replace("/opt/special/bin/special", "echo"), "mount.special", *asked]
    name, *words = subprocess.run(printed, check=True, capture_output=True, text=True).stdout.split()
    group = typer.main.get_command(cli)
    found = group.get_command(typer.Context(group), name)
    assert found is not None
    given = found.make_context(name, words).params
    assert (given["source"], str(given["config"])) == ("s3://masters", "/etc/special.toml")


def test_what_pip_is_asked_for_is_this_package_with_extras_that_it_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = re.findall(r"pip install '?(?:-q )?([\w-]+)(?:\[([\w,]+)\])?", README + "".join(PAGES.values()))
    named = [(name, extras) for name, extras in asked if name.startswith("special")]
    assert named
    for name, extras in named:
        assert name == project["name"]
        assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("text", [*PAGES.values(), *FILES.values()], ids=[*PAGES, *FILES])
def test_every_variable_is_a_setting(text: str) -> None:
    injected = {"SERVICE_HOST"}  # by Kubernetes
    assert set(re.findall(r"\bSPECIAL_([A-Z_]+)", text)) <= VARIABLES | injected


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_every_link_leads_somewhere(text: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (DOCS / target).is_file(), target


def test_settings_that_pages_name_are_settings() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", PAGES["coming-from.md"], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z][a-z0-9_]+)(?: =[^`]*)?`", row)}
    assert named - set(Settings.model_fields) == set()
    assert len(named) > 15


def test_the_toml_file_is_read(tmp_path: Path) -> None:
    chosen = load(EXAMPLES / "special.toml")
    assert chosen.rules[0].roles == ("staff",)
    for block in re.findall(r"```toml\n(.*?)```", "".join(PAGES.values()), re.DOTALL):
        file = tmp_path / "block.toml"
        file.write_text(block)
        load(file, source="x")


def containers() -> list[tuple[str, dict[str, str], list[str]]]:
    compose = yaml.safe_load(FILES["compose.yaml"])["services"]["special"]
    (kubernetes,) = (
        it["spec"]["template"]["spec"]["containers"][0]
        for it in yaml.safe_load_all(FILES["kubernetes.yaml"])
        if it["kind"] == "StatefulSet"
    )
    variables = {it["name"]: it["value"] for it in kubernetes["env"]}
    return [
        ("compose", compose["environment"], compose["command"]),
        ("kubernetes", variables, kubernetes["args"]),
    ]


@pytest.mark.parametrize(("environment", "command"), [it[1:] for it in containers()], ids=["compose", "kubernetes"])
def test_a_container_starts_with_settings_that_can_work(
    environment: dict[str, str], command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        assert isinstance(value, str), name
        monkeypatch.setenv(name, value)
    assert command == ["serve"]
    assert load().source == "s3://archive/masters"


def test_probes_ask_pages_that_there_are() -> None:
    for document in yaml.safe_load_all(FILES["kubernetes.yaml"]):
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        if document["kind"] == "StatefulSet":
            container = document["spec"]["template"]["spec"]["containers"][0]
            ports = {it["name"] for it in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container[probe]["httpGet"]
                assert asked["path"].strip("/") in pages.WATCHED
                assert asked["port"] in ports
            assert document["spec"]["selector"]["matchLabels"] == document["spec"]["template"]["metadata"]["labels"]


def test_the_unit_starts_a_command_and_stops_it_in_time() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(FILES["special.service"])
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert (Path(program).name, arguments) == ("special", ["serve", "--config", "/etc/special.toml"])
    assert int(unit["Service"]["TimeoutStopSec"]) > 30


SET_BEFORE = [
    found
    for text in [README, *PAGES.values()]
    for line in "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", "").splitlines()
    if (found := re.match(r"(?:[A-Z_]+=\S+ +)+(?=special )", line))
] + [
    found
    for block in re.findall(r"```ini\n(.*?)```", "".join(PAGES.values()), re.DOTALL)
    for found in re.finditer(r"(?<=^Environment=).*$", block, re.MULTILINE)
]
"""Variables that blocks set for a command, and for a unit of systemd."""


@pytest.mark.parametrize("found", SET_BEFORE, ids=lambda it: it[0].split("=")[0])
def test_variables_that_are_set_for_a_command_have_values_that_settings_take(
    found: re.Match[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict(it.split("=", 1) for it in shlex.split(found[0]))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    names = {it.removeprefix("SPECIAL_").lower() for it in given if it.startswith("SPECIAL_")}
    assert names
    assert names <= load(source="x").model_fields_set


def test_units_that_pages_show_are_units() -> None:
    blocks = re.findall(r"```ini\n(.*?)```", "".join(PAGES.values()), re.DOTALL)
    assert blocks
    for block in blocks:
        unit = configparser.ConfigParser(interpolation=None, strict=True)
        unit.read_string(block)
        assert unit.sections() == ["Unit", "Service", "Install"]
        assert Path(shlex.split(unit["Service"]["ExecStart"])[0]).name == "special"


def test_every_kind_of_block_is_run_or_loaded_by_a_test() -> None:
    """Shell, TOML and units here; the rest in `tests/test_documents.py`, `tests/web` and `tests/browser`."""
    kinds = re.findall(r"^```(.+)$", "".join([README, *PAGES.values()]), re.MULTILINE)
    assert set(kinds) == {"sh", "toml", "ini", "python", "html", "caddy", "mermaid", "js"}


def expressions() -> list[str]:
    rules = yaml.safe_load(FILES["prometheus-rules.yaml"])
    alerts = [it["expr"] for group in rules["groups"] for it in group["rules"]]
    dashboard: dict[str, Any] = json.loads(FILES["grafana-dashboard.json"])
    return alerts + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_dashboard_and_alerts_ask_for_metrics_that_there_are(expression: str) -> None:
    named = set(re.findall(r"\bspecial_\w+", expression))
    assert named
    exposed = {sample for it in METRICS for sample in (it, f"{it}_total", f"{it}_bucket")}
    assert named <= exposed
    assert expression.count("(") == expression.count(")")
    for kind in re.findall(r'kind=~?"([^"]+)"', expression):
        assert set(kind.split("|")) <= {"unreachable", "denied", "ranges-ignored"}


def test_the_policies_allow_what_is_needed_and_no_more() -> None:
    text = FILES["iam.tf"]
    actions = [sorted(re.findall(r'"(s3:\w+)"', it)) for it in re.findall(r"actions\s+= \[(.*?)\]", text)]
    assert actions == [["s3:GetObject"], ["s3:ListBucket"], ["s3:DeleteObject", "s3:PutObject"]]
    assert text.count("{") == text.count("}")


def test_docs_prints_every_page_and_example() -> None:
    run = CliRunner().invoke
    listed = run(cli, ["docs"]).stdout.split()
    assert {*listed} == {*(name.removesuffix(".md") for name in PAGES), *(f"examples/{name}" for name in FILES)}
    assert run(cli, ["docs", "settings"]).stdout == PAGES["settings.md"]
    assert tomllib.loads(run(cli, ["docs", "examples/special.toml"]).stdout)["port"] == 8000
