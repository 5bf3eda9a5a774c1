import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from special import machine
from special.cli import cli
from special.errors import ConfigurationError
from special.settings import Settings, default_decoder_memory, default_decoders, load, origins
from special.settings_file import commented_toml

PAGE = Path(__file__).parent.parent / "special" / "docs" / "settings.md"


def table() -> str:
    """The table of settings; `python -m tests.test_settings` writes it there."""
    rows = ["| Setting | Default | What it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{name}` | {_default(field)} | {field.description} |")
    return "\n".join(rows)


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "by the machine"
    if field.is_required():
        return "–"
    value = field.default
    if type(value).__name__ == "ByteSize":
        return f"`{value.human_readable()}`"
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value not in (None, "") else ""


def written() -> str:
    text = PAGE.read_text("utf-8")
    return re.sub(
        r"(<!-- settings:.*?-->\n).*(<!-- /settings -->)",
        lambda it: f"{it[1]}{table()}\n{it[2]}",
        text,
        flags=re.DOTALL,
    )


def test_the_page_lists_every_setting() -> None:
    assert PAGE.read_text("utf-8") == written(), "run: python -m tests.test_settings"


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "special.toml"
    config.write_text('source = "file"\nport = 1\nkeys = ["{id}.tif", "{id}"]\nvolume_size = "3GiB"\n')
    monkeypatch.setenv("SPECIAL_PORT", "2")
    monkeypatch.setenv("SPECIAL_HOST", "::1")
    chosen = load(config, source="flag", host=None)
    assert (chosen.source, chosen.port, chosen.host) == ("flag", 2, "::1")
    assert chosen.keys == ("{id}.tif", "{id}")
    assert chosen.volume_size == 3 * 2**30
    monkeypatch.setenv("SPECIAL_KEYS", "{id}, {id}.jp2")
    assert load(config).keys == ("{id}", "{id}.jp2")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param({"source": "x", "port": 70000}, "port", id="port"),
        pytest.param({"source": "x", "volume_size": "lots"}, "volume_size", id="size"),
        pytest.param({"source": "x", "keys": "constant"}, "lacks {id}", id="template"),
        pytest.param({"source": "x", "keys": ""}, "at least one", id="no template"),
        pytest.param({}, "the variable SPECIAL_SOURCE, or source in a file", id="no source"),
        pytest.param(
            {"source": "x", "base_url": "images.example.org"}, "setting 'base_url': write it whole", id="no scheme"
        ),
        pytest.param({"source": "x", "volume_size": "lots"}, "with its unit, such as 200GiB (got 'lots')", id="size"),
        pytest.param({"source": "x", "volume_size": "3 boxes"}, "unit, such as 200GiB (got '3 boxes')", id="unit"),
        pytest.param({"source": "x", "base_url": "https:///x"}, "write it whole", id="no host"),
        pytest.param(
            {"source": "x", "port": 8001, "admin_port": 8001}, "admin_port and port must be different", id="one port"
        ),
    ],
)
def test_what_cannot_work_is_named(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load(**flags)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no configuration file"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("port = = 1")
    with pytest.raises(ConfigurationError, match=r"broken\.toml"):
        load(broken)
    unknown = tmp_path / "unknown.toml"
    unknown.write_text('source = "x"\nprot = 1\n')
    with pytest.raises(ConfigurationError, match="prot"):
        load(unknown)
    unknown.write_text('sorce = "x"\n')
    with pytest.raises(ConfigurationError, match="no setting 'sorce': did you mean source"):
        load(unknown)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        pytest.param("SPECIAL_MAX_UNAUTHORIZED", ": did you mean SPECIAL_MAX_UNAUTHORISED?", id="another spelling"),
        pytest.param("special_volume_sizes", ": did you mean SPECIAL_VOLUME_SIZE?", id="in small letters"),
        pytest.param("SPECIAL_PROT", ": did you mean SPECIAL_PORT?", id="a slip"),
        pytest.param("SPECIAL_XYZZY", "; `special docs settings` lists them", id="nothing like it"),
        pytest.param("SPECIAL_", "; `special docs settings` lists them", id="no name"),
        pytest.param("SPECIAL_RULES__0__ROLES", "; `special docs settings` lists them", id="a nested name"),
    ],
)
def test_variable_that_is_no_setting_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, hint: str, tmp_path: Path
) -> None:
    config = tmp_path / "special.toml"
    config.write_text("port = 1\n")
    monkeypatch.setenv(variable, "400")

    for file in (None, config):
        with pytest.raises(ConfigurationError) as caught:
            load(file, source="x")
        assert str(caught.value) == f"the variable {variable} is no setting of special{hint}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("prot = 1", "there is no setting 'prot': did you mean port?", id="a setting"),
        pytest.param(
            "xyzzy = 1", "there is no setting 'xyzzy'; `special docs settings` lists them", id="nothing like it"
        ),
        pytest.param(
            '[[rules]]\nidentifiers = "*"\nmax_unauthorized = 0',
            "there is no setting 'rules.0.max_unauthorized': did you mean max_unauthorised?",
            id="in a rule",
        ),
    ],
)
def test_key_of_a_file_that_is_no_setting_ends_the_start(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "special.toml"
    config.write_text(text)

    with pytest.raises(ConfigurationError) as caught:
        load(config, source="x")
    assert str(caught.value) == message


def test_variables_that_are_not_the_operators_are_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "special.toml"
    config.write_text("host = '::1'\n")
    injected = {
        "SPECIAL_SERVICE_HOST": "10.0.0.11",
        "SPECIAL_SERVICE_PORT": "8000",
        "SPECIAL_SERVICE_PORT_HTTP": "8000",
        "SPECIAL_PORT": "tcp://10.0.0.11:8000",
        "SPECIAL_PORT_8000_TCP": "tcp://10.0.0.11:8000",
        "SPECIAL_PORT_8000_TCP_PROTO": "tcp",
        "SPECIAL_PORT_8000_TCP_PORT": "8000",
        "SPECIAL_PORT_8000_TCP_ADDR": "10.0.0.11",
        # Of a service named `special-cache`.
        "SPECIAL_CACHE_SERVICE_HOST": "10.0.0.12",
        "SPECIAL_CACHE_PORT": "tcp://10.0.0.12:80",
        "SPECIAL_CACHE_PORT_80_TCP_ADDR": "10.0.0.12",
    }
    ours = {"SPECIAL_RESOLVED_SETTINGS": "{}", "SPECIAL_HOME": str(tmp_path), "SPECIALIST": "x"}
    for name, value in (injected | ours).items():
        monkeypatch.setenv(name, value)

    for file in (None, config):
        chosen = load(file, source="x")
        assert (chosen.port, chosen.home) == (8000, tmp_path)
    assert chosen.host == "::1"


def test_settings_survive_the_way_to_a_server_process() -> None:
    chosen = load(source="s3://x", keys="{id},{id}.jp2", volume_size="5GiB")
    assert Settings.model_validate_json(chosen.model_dump_json()) == chosen


def test_server_processes_and_their_decoders_follow_the_processors() -> None:
    processors = machine.processors()
    chosen = load(source="x")
    assert chosen.workers == min(processors, 4)
    assert chosen.workers * chosen.decoders >= processors
    assert load(source="x", workers=1).decoders == processors
    assert load(source="x", workers=3, decoders=5).decoders == 5
    assert [default_decoders(*it) for it in ((1, 1), (2, 2), (4, 4), (4, 8))] == [1, 2, 2, 2]
    assert default_decoders(4, 64) == 16
    assert default_decoders(16, 16) == 2


@pytest.mark.parametrize(("memory", "expected"), [(64 << 30, 4 << 30), (1 << 30, 1 << 30), (1 << 28, 384 << 20)])
def test_a_decoder_has_no_more_memory_than_there_is(memory: int, expected: int) -> None:
    assert default_decoder_memory(memory) == expected


def test_a_user_without_a_home_directory_is_asked_for_a_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~")  # what expands to itself is no directory
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ConfigurationError, match="name a state folder that it may write, with SPECIAL_HOME"):
        load(source="s3://masters")
    monkeypatch.setenv("SPECIAL_HOME", "/state")
    assert load(source="s3://masters").volume_directory == Path("/state/volume")


def test_compose_sets_what_is_not_set_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOURCE", "WORKERS", "VOLUME_SIZE", "BASE_URL", "STATUS", "DEFAULT_ROLES"):
        monkeypatch.setenv(f"SPECIAL_{name}", "")
    chosen = load(source="x")
    assert (chosen.volume_size, chosen.base_url, chosen.status) == (10 * 2**30, None, False)
    assert chosen.default_roles == ()
    with pytest.raises(ConfigurationError, match="which masters"):
        load()


RULES = """
[[rules]]
identifiers = "private/*"
max_unauthorised = 400
roles = ["staff", 'a"b']
"""


def test_what_config_prints_is_a_file_of_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "special.toml"
    config.write_text(f'home = "/a\\\\b\\u007f"\nhot_size = 1000\nstatus = true\nrequest_ms = 0.25\n{RULES}')
    monkeypatch.setenv("SPECIAL_KEYS", "{id},{id}.jp2")
    monkeypatch.setenv("SPECIAL_VOLUME_SIZE", "3GiB")
    flags = {"source": "s3://ä/x", "thumbs": None}
    chosen = load(config, **flags)
    printed = tmp_path / "printed.toml"
    printed.write_text(commented_toml(chosen, origins(config, flags)), "utf-8")
    monkeypatch.delenv("SPECIAL_KEYS")
    monkeypatch.delenv("SPECIAL_VOLUME_SIZE")
    assert load(printed).model_dump() == chosen.model_dump()
    text = printed.read_text("utf-8")
    for line in (
        '# From the command line.\nsource = "s3://ä/x"\n',
        '# From the variable SPECIAL_VOLUME_SIZE.\nvolume_size = "3GiB"\n',
        f"# From in {config}.\nhot_size = 1000\n".replace("From in", "From"),
        "# The default.\n# port = 8000\n",
    ):
        assert line in text


def test_the_file_may_be_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "special.toml"
    config.write_text('source = "here"\n')
    monkeypatch.setenv("SPECIAL_CONFIG", str(config))
    printed = CliRunner().invoke(cli, ["config"])
    assert printed.exit_code == 0
    assert f'# From {config}.\nsource = "here"\n' in printed.stdout


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
