"""The READMEs, Dockerfile and `.ci/run` tell the truth."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import typer
from PIL import Image

from special.cli import cli
from special.settings import Settings, load
from special.web.viewer import LIBRARY_VERSION
from tests.bench import picture
from tests.support.live import LiveServer

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = README + "".join((ROOT / name / "README.md").read_text("utf-8") for name in ("special", "tests"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
CI = (ROOT / ".ci" / "run").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
ONE_LINERS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python3 -m venv")]
COMMANDS = sorted(set(re.findall(r"(?:^|`)(special [a-z].*?)(?:`|$)", README, re.MULTILINE)))
CURLS = [shlex.split(line) for block in BLOCKS for line in block.splitlines() if line.startswith("curl")]


# README


def test_two_commands_set_everything_up():
    serve, test = ONE_LINERS
    assert serve.endswith(" && .venv/bin/special serve fixtures/masters")
    assert test.endswith(" && .venv/bin/python -m pytest")


def test_ci_runs_the_second_command():
    assert CI.splitlines()[-1] == ONE_LINERS[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str):
    group = typer.main.get_command(cli)
    name, *arguments = shlex.split(command)[1:]
    found = group.get_command(typer.Context(group), name)
    assert found is not None, f"there is no command 'special {name}'"
    if arguments and arguments != ["--help"]:
        found.make_context(name, arguments)  # raises what a user would read


def test_the_rules_are_read(tmp_path: Path):
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "special.toml").write_text(block)
    (rule,) = load(tmp_path / "special.toml", source="x").rules
    assert (rule.max_unauthorised, rule.roles) == (400, ("staff",))


def test_the_proxy_is_the_one_of_the_example():
    (block,) = re.findall(r"```caddy\n(.*?)```", README, re.DOTALL)
    example = (ROOT / "special/docs/examples/Caddyfile").read_text("utf-8")
    assert block.split() == re.sub(r"#.*", "", example).replace("special:8000", "127.0.0.1:8000").split()


def test_the_picture_is_there_and_small():
    (path,) = re.findall(r"!\[[^]]+\]\((special/docs/[^)]+webp)\)", README)
    assert (ROOT / path).stat().st_size < 150_000
    with Image.open(ROOT / path) as picture:
        assert min(picture.size) > 400


def test_the_picture_of_speeds_is_drawn_from_its_table():
    table = (ROOT / "special/docs/speed.md").read_text("utf-8")
    drawn = (ROOT / "special/docs/speed.svg").read_text("utf-8")
    assert drawn == picture.svg(list(picture.bars(table))) + "\n"


@pytest.mark.parametrize("text", [README, DOCKERFILE], ids=["README", "Dockerfile"])
def test_every_variable_is_a_setting(text: str):
    named = {name.lower() for name in re.findall(r"\bSPECIAL_(\w+)", text)}
    assert named
    assert named <= set(Settings.model_fields)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\b(?:fixtures|tests|special)/[\w./-]+\w|\.ci/run", DOCUMENTS)))
)
def test_a_path_exists(path: str):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("address", ["/livez", "/readyz", "/metrics", "/"])
def test_an_address_answers(live_server: LiveServer, address: str):
    assert f"`{address}`" in README
    assert httpx.get(f"{live_server.url}{address}").status_code == 200


@pytest.mark.parametrize("curl", CURLS, ids=lambda curl: curl[-1])
def test_an_example_works(live_server: LiveServer, curl: list[str]):
    answer = httpx.get(curl[-1].replace("http://127.0.0.1:8000", live_server.url))
    assert answer.status_code == 200, answer.text
    if "-o" in curl:
        Image.open(BytesIO(answer.content)).verify()


def test_the_viewer_for_one_s_own_page_is_the_version_that_is_tested():
    assert f"/openseadragon@{LIBRARY_VERSION}/build/openseadragon/openseadragon.min.js" in README


# Dockerfile


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def the(word: str) -> str:
    (rest,) = (rest for name, rest in instructions() if name == word)
    return rest


def test_the_image_is_started_as_the_readme_says():
    (run,) = [shlex.split(line) for block in BLOCKS for line in block.splitlines() if line.startswith("docker run")]
    (port,) = (word for word in run if re.fullmatch(r"\d+:\d+", word))
    (folder,) = (word for word in run if word.startswith("./masters:"))
    assert port.partition(":")[2] == the("EXPOSE")
    assert folder.split(":")[1] == json.loads(the("CMD"))[1]


def test_the_image_is_built_from_files_that_are_here():
    for word, rest in instructions():
        if word == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest


def test_the_image_is_installed_as_root_and_runs_as_nobody_special():
    words = [word for word, _ in instructions()]
    assert the("USER") not in ("root", "0")
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in ("COPY", "RUN"))


def test_the_image_starts_the_server_without_a_shell():
    program, arguments = json.loads(the("ENTRYPOINT")), json.loads(the("CMD"))
    assert (program, arguments[0]) == (["special"], "serve")
    assert the("EXPOSE") == str(Settings.model_fields["port"].default)


def test_the_health_check_asks_a_live_server(live_server: LiveServer):
    python, flag, script = json.loads(the("HEALTHCHECK").partition("CMD ")[2])
    assert (python, flag) == ("python", "-c")
    port = live_server.url.rpartition(":")[2]
    checks = {"up": port, "down": "9"}  # nothing listens on the discard port
    codes = {
        name: subprocess.run(
            [sys.executable, "-c", script], env={"SPECIAL_PORT": each}, capture_output=True, check=False
        ).returncode
        for name, each in checks.items()
    }
    assert codes == {"up": 0, "down": 1}


def test_what_pip_installs_has_every_file(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    tracked = subprocess.run(["git", "ls-files", "special"], cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        assert {*tracked.stdout.split(), "special/py.typed", "special/docs/settings.md"} <= names
        (licence,) = (name for name in names if name.endswith(".dist-info/licenses/LICENSE"))
        assert packed.read(licence) == (ROOT / "LICENSE").read_bytes()
