"""Buckets of two stores, a real S3 server and moto: addresses as identifiers, each read from its own store."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from special.settings import load
from special.web.app import App
from tests.support.servers import S3Server

pytestmark = pytest.mark.service


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(data, "PNG")
    return data.getvalue()


async def test_two_stores(
    tmp_path: Path, moto_s3: S3Server, seaweed_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = moto_s3.bucket(), seaweed_s3.bucket()
    moto_s3.client().put_object(Bucket=mine, Key="m/one.png", Body=png("red"))
    seaweed_s3.client().put_object(Bucket=other, Key="m/two.png", Body=png("blue"))
    seaweed_s3.client().put_object(Bucket=other, Key="private/two.png", Body=png("black"))
    for name, value in moto_s3.environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "credentials").write_text(
        f"[other]\naws_access_key_id = {seaweed_s3.environ['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {seaweed_s3.environ['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "special.toml").write_text(f"""
decoders = 1
[[sources]]
url = "s3://{other}/m"
endpoint = "{seaweed_s3.endpoint}"
profile = "other"
requester_pays = true
[[catalogue]]
kind = "s3"
""")
    app = App(load(tmp_path / "special.toml", source=f"s3://{mine}/m", home=tmp_path / "home"))
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://x.org") as client:
        for identifier, colour in [
            (f"s3://{mine}/m/one.png", (255, 0, 0)),
            (f"s3://{other}/m/two.png", (0, 0, 255)),
            (f"s3://eu-west-1/{other}/m/two.png", (0, 0, 255)),
            (f"s3:/{other}/m/two.png", (0, 0, 255)),
            (f"s3://{other}/private/two.png", None),
            (f"s3://{other}/m/../private/two.png", None),
            (f"s3://{mine}/m/two.png", None),
            ("s3://elsewhere/m/two.png", None),
            ("one.png", None),
        ]:
            path = f"/iiif/3/{identifier.replace('/', '%2F')}/full/max/0/default.png"
            answer = await client.get(path)
            if colour is None:
                assert answer.status_code == 404, identifier
            else:
                assert answer.status_code == 200, (identifier, answer.text)
                assert Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((0, 0)) == colour
        info = await client.get(f"/iiif/3/s3:%2F%2F{other}%2Fm%2Ftwo.png/info.json")
        assert info.json()["id"] == f"http://x.org/iiif/3/s3:%2F%2F{other}%2Fm%2Ftwo.png"
