"""Several machines: nginx, as its example in special/docs says, before three servers that share nothing but S3."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import pytest

from special.geometry import Box
from special.volume import stat
from tests.soak.noise import Noise, address
from tests.support import live
from tests.support.live import LiveServer
from tests.support.nginx import SEVERAL_MACHINES, needs_nginx, nginx
from tests.support.servers import READY_WITHIN_S, S3Server
from tests.support.waiting import until

MACHINES = 3
MASTERS = {f"{'shelf/' * (n % 2)}{n} & more.tif": Noise(n, 256, 256) for n in range(30)}
"""Half of the identifiers have a slash, all have blanks."""
REGIONS = Box(0, 0, 100, 100), Box(130, 50, 60, 60)
pytestmark = needs_nginx


@dataclass(frozen=True)
class Cluster:
    """Three servers, and the address that everybody uses."""

    url: str
    servers: dict[str, LiveServer]
    """By the address that nginx knows them by."""


@pytest.fixture(scope="module")
def cluster(seaweed_s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    bucket = seaweed_s3.bucket()
    for name, master in MASTERS.items():
        seaweed_s3.client().put_object(Bucket=bucket, Key=name, Body=master.file)
    settings = seaweed_s3.environ | {"SPECIAL_DECODERS": "1"}
    with ExitStack() as stack, ThreadPoolExecutor(MACHINES) as threads:
        contexts = [
            live.special(f"s3://{bucket}", home=tmp_path_factory.mktemp("machine"), settings=settings)
            for _ in range(MACHINES)
        ]
        started = list(threads.map(stack.enter_context, contexts))
        servers = {server.url.removeprefix("http://"): server for server in started}
        yield Cluster(
            stack.enter_context(nginx(SEVERAL_MACHINES, tmp_path_factory.mktemp("nginx"), list(servers))), servers
        )


def look(cluster: Cluster) -> dict[str, str]:
    """Look at every master, in several ways, and say which machine has shown it; each has one alone."""
    shown_by: dict[str, str] = {}
    with httpx.Client(base_url=cluster.url, timeout=60, transport=httpx.HTTPTransport(retries=20)) as client:
        for n, (name, master) in enumerate(MASTERS.items()):
            quoted = quote(name, safe="")
            answers = [client.get(address(quoted, region)) for region in REGIONS]
            assert all(master.shows(region, it.content) for region, it in zip(REGIONS, answers, strict=True))
            answers.append(client.get(f"/iiif/{2 + n % 2}/{quoted.replace('%2F', '%2f')}/info.json"))
            answers.append(client.get(f"/iiif/v2/{quoted}/full/100,/0/default.jpg"))
            assert [answer.status_code for answer in answers] == [200] * 4
            assert client.get(f"/iiif/3/{quoted}/info.json").json()["id"] == f"{cluster.url}/iiif/3/{quoted}"
            # After a machine that did not answer, nginx names the next one too.
            (shown_by[name],) = {answer.headers["x-upstream"].split(", ")[-1] for answer in answers}
    return shown_by


def on_volumes(cluster: Cluster) -> dict[str, list[str]]:
    """Which masters are on which machine's volume."""
    held = {address: stat(server.home / "volume", top=100).top for address, server in cluster.servers.items()}
    return {address: [it.url.rpartition("://")[2].split("/", 1)[1] for it in top] for address, top in held.items()}


async def test_each_master_is_one_machine_s_and_a_lost_machine_moves_its_share_alone(cluster: Cluster) -> None:
    before = look(cluster)
    shares = Counter(before.values())
    print(f"\nshares of {MACHINES} machines: {sorted(shares.values())}")
    assert set(shares) == set(cluster.servers)
    await until(lambda: sum(map(len, on_volumes(cluster).values())) == len(MASTERS))
    for machine, names in on_volumes(cluster).items():
        assert sorted(names) == sorted(name for name in MASTERS if before[name] == machine)

    lost, server = next(iter(cluster.servers.items()))
    server.process.kill()
    server.process.wait(READY_WITHIN_S)
    after = look(cluster)
    assert lost not in after.values()
    moved = [name for name in MASTERS if before[name] != after[name]]
    assert sorted(moved) == sorted(name for name in MASTERS if before[name] == lost)
