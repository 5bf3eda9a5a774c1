"""What ends a start, what is only told, and what `special check` prints of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from special import machine, preflight
from special.errors import ConfigurationError
from special.settings import Settings, load
from tests.support.live import MASTERS, LiveServer
from tests.support.servers import S3Server


def settings(tmp_path: Path, **given: object) -> Settings:
    return load(**{"source": str(MASTERS), "home": tmp_path / "home", **given})


async def test_a_volume_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/volume cannot be written \(Not a directory\)"):
        await preflight.volume(settings(tmp_path, volume=tmp_path / "file" / "volume"))
    with pytest.raises(ConfigurationError, match="/proc/volume cannot be written"):
        await preflight.volume(settings(tmp_path, volume=Path("/proc/volume")))


async def test_a_volume_that_is_larger_than_its_disk_is_told_of(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free_gib = disk.f_bavail * disk.f_frsize / 2**30
    (told,) = (await preflight.volume(settings(tmp_path, volume_size="900TiB"))).warnings
    assert "may take 921,600.0 GiB" in told
    said_gib = float(told.partition(" has ")[2].partition(" GiB")[0].replace(",", ""))
    assert said_gib == pytest.approx(free_gib, rel=0.2, abs=1)
    assert (await preflight.volume(settings(tmp_path, volume_size="64MiB"))).warnings == ()


async def test_an_empty_source_is_told_of(tmp_path: Path) -> None:
    empty = tmp_path / "masters"
    empty.mkdir()
    (told,) = (await preflight.masters(settings(tmp_path, source=str(empty)))).warnings
    assert "is empty: is the prefix right?" in told
    (empty / "a.jpg").write_bytes(b"x")
    assert (await preflight.masters(settings(tmp_path, source=str(empty)))).warnings == ()


@pytest.mark.service
async def test_an_empty_prefix_is_told_of(
    tmp_path: Path, seaweed_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed_s3.environ.items():
        monkeypatch.setenv(name, value)
    bucket = seaweed_s3.bucket()
    seaweed_s3.client().put_object(Bucket=bucket, Key="masters/a.jpg", Body=b"x")
    said = [await preflight.masters(settings(tmp_path, source=f"s3://{bucket}{it}")) for it in ("/master", "/masters")]
    assert [len(it.warnings) for it in said] == [1, 0]
    assert (await preflight.writing(settings(tmp_path, thumbs=f"s3://{bucket}/thumbs"))).warnings == ()
    listed = seaweed_s3.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert [it["Key"] for it in listed] == ["masters/a.jpg"]


async def test_fewer_descriptors_than_connections_need_are_told_of(tmp_path: Path) -> None:
    possible = machine.connections()
    (told,) = (await preflight.connections(settings(tmp_path, max_connections=possible + 1))).warnings
    assert told.startswith(f"there are {possible} connections at most and not {possible + 1}")
    assert (await preflight.connections(settings(tmp_path, max_connections=possible))).warnings == ()


def special(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SPECIAL_")}
    return subprocess.run(
        [sys.executable, "-m", "special", *arguments],
        env={**environ, "SPECIAL_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.service
def test_check_is_one_line_each_and_an_exit_code(tmp_path: Path) -> None:
    good = special("check", str(MASTERS), "--write", home=tmp_path)
    said = [line.split()[:2] for line in good.stdout.splitlines() if not line.startswith("warning")]
    assert (good.returncode, said) == (
        0,
        [["ok", f"{it}:"] for it in (*preflight.AT_START, "decoders", "writing")],
    )
    bad = special("check", "/no/such/folder", home=tmp_path, SPECIAL_VOLUME="/proc/volume")
    assert bad.returncode == 1
    assert [line.split()[:2] for line in bad.stdout.splitlines() if line.startswith("failed")] == [
        ["failed", "masters:"],
        ["failed", "volume:"],
        ["failed", "services:"],
    ]
    unset = special("check", home=tmp_path)
    assert (unset.returncode, len(unset.stderr.splitlines())) == (2, 1)


@pytest.mark.service
def test_check_tells_containers_whether_the_server_lives(live_server: LiveServer, tmp_path: Path) -> None:
    port = live_server.url.rpartition(":")[2]
    alive = special("check", "--health", home=tmp_path, SPECIAL_PORT=port, SPECIAL_HOST="0.0.0.0")
    assert (alive.returncode, "the event loop is" in alive.stdout) == (0, True)
    dead = special("check", "--health", home=tmp_path, SPECIAL_PORT="9")
    assert (dead.returncode, len(dead.stderr.splitlines())) == (2, 1)


@pytest.mark.service
def test_an_address_that_cannot_be_listened_on_is_named_with_its_setting(
    live_server: LiveServer, tmp_path: Path
) -> None:
    taken = special("serve", str(MASTERS), "--port", live_server.url.rpartition(":")[2], home=tmp_path)
    unknown = special("serve", str(MASTERS), "--port", "0", "--host", f"{'a' * 64}.invalid", home=tmp_path)
    assert (taken.returncode, unknown.returncode) == (2, 2)
    assert taken.stderr.endswith("; choose another with --port\n")
    assert unknown.stderr.endswith("; choose another with --host\n")
    assert len((taken.stderr + unknown.stderr).splitlines()) == 2


@pytest.mark.service
def test_version(tmp_path: Path) -> None:
    assert special("--version", home=tmp_path).stdout == "special 0.1.0\n"
    assert special("serve", "-h", home=tmp_path).returncode == 0
