"""Places that overlap: renditions and state that would be masters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from special.errors import ConfigurationError
from special.storage import check_apart

pytestmark = pytest.mark.service

HOME, VOLUME = Path("/var/lib/special"), Path("/var/cache/special")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the paths of the cases start: real folders, and links to them."""
    for name in ("masters/thumbs", "masters/1/2", "thumbs", "masters-too", "home/volume"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("masters", target_is_directory=True)
    (tmp_path / "elsewhere").symlink_to("thumbs", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


THUMBS = "would be listed as masters"
MASTERS = "a rendition may get the key of a master"


@pytest.mark.parametrize(
    ("source", "thumbs", "sign"),
    [
        pytest.param("masters", "thumbs", None, id="side by side"),
        pytest.param("masters", "masters-too", None, id="a name that begins alike"),
        pytest.param("masters", "elsewhere", None, id="a link that leads apart"),
        pytest.param("masters", "s3://masters/thumbs", None, id="a folder and a bucket"),
        pytest.param("masters", "masters", THUMBS, id="one folder"),
        pytest.param("masters", "masters/thumbs", THUMBS, id="renditions below masters"),
        pytest.param("masters", "masters/new/er", THUMBS, id="a folder that is not there yet"),
        pytest.param("masters", "{here}/masters/thumbs", THUMBS, id="relative and absolute"),
        pytest.param(".", "thumbs", THUMBS, id="the working directory"),
        pytest.param("~", "thumbs", THUMBS, id="the user's own directory"),
        pytest.param("masters/1/..", "thumbs/../masters/thumbs", THUMBS, id="dots"),
        pytest.param("masters", "link/thumbs", THUMBS, id="renditions through a link"),
        pytest.param("link", "masters/thumbs", THUMBS, id="masters through a link"),
        pytest.param("file://{here}/masters", "masters/thumbs", THUMBS, id="a file URL"),
        pytest.param("file://{here}/link", "FILE://localhost{here}/masters/thum%62s", THUMBS, id="two file URLs"),
        pytest.param("masters/1", "masters", MASTERS, id="masters below renditions"),
        pytest.param("s3://b/masters", "s3://b/thumbs", None, id="two prefixes"),
        pytest.param("s3://b/masters", "s3://b/masters-too", None, id="a prefix that begins alike"),
        pytest.param("s3://b", "s3://c", None, id="two buckets"),
        pytest.param("s3://b", "gs://b", None, id="two stores"),
        pytest.param("s3://b/a%2Fb", "s3://b/a/b", None, id="prefixes are never unquoted"),
        pytest.param("s3://b", "s3://b", THUMBS, id="one bucket"),
        pytest.param("s3://b/", "s3://b/thumbs", THUMBS, id="a prefix of the bucket"),
        pytest.param("s3://b/m", "S3://b/m/thumbs/", THUMBS, id="a prefix of a prefix"),
        pytest.param("s3://b/thumbs/m", "s3://b/thumbs", MASTERS, id="masters below the prefix of renditions"),
        pytest.param("az://c", "az://c/thumbs", THUMBS, id="Azure"),
        pytest.param("http://h/m", "https://h/m/thumbs", THUMBS, id="the web, either way"),
    ],
)
def test_renditions_and_masters(folders: Path, source: str, thumbs: str, sign: str | None) -> None:
    places = source.format(here=folders), thumbs.format(here=folders)
    if sign is None:
        check_apart(places[0], thumbs=places[1], home=HOME, volume=VOLUME)
        return
    with pytest.raises(ConfigurationError, match=f"{sign}.*: choose .*--thumbs"):
        check_apart(places[0], thumbs=places[1], home=HOME, volume=VOLUME)


@pytest.mark.parametrize(
    ("home", "volume", "sign"),
    [
        pytest.param("home", "home/volume", None, id="apart"),
        pytest.param("masters/state", "home/volume", "set SPECIAL_HOME", id="the state folder"),
        pytest.param("link", "home/volume", "set SPECIAL_HOME", id="the state folder, through a link"),
        pytest.param("home", "masters/1/volume", "outside with --volume", id="the volume"),
        pytest.param(".", "home/volume", None, id="masters below the state folder"),
    ],
)
def test_state_and_masters(folders: Path, home: str, volume: str, sign: str | None) -> None:
    if sign is None:
        check_apart("masters", thumbs="thumbs", home=Path(home), volume=Path(volume))
        return
    with pytest.raises(ConfigurationError, match=sign):
        check_apart("masters", thumbs="thumbs", home=Path(home), volume=Path(volume))
    check_apart("s3://masters", thumbs="thumbs", home=Path(home), volume=Path(volume))


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["serve", "--port", "0"], id="serve"),
        pytest.param(["derive"], id="derive"),
        pytest.param(["derive", "--queue", "http://127.0.0.1:9/queue"], id="queue worker"),
    ],
)
def test_commands_refuse_before_any_work(folders: Path, command: list[str]) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "special", command[0], "masters", *command[1:], "--thumbs", "masters/thumbs"],
        env=os.environ | {"PYTHONPATH": str(root), "SPECIAL_HOME": str(folders / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert done.stderr == (
        "special: renditions at masters/thumbs would be listed as masters of masters, restricted ones too: "
        "choose a place outside it with --thumbs\n"
    )
    assert list((folders / "masters/thumbs").iterdir()) == []
