"""The places that masters and renditions live in, each behind the `Source` protocol.

`open_source` takes a URL; opening asks nothing over the network. The tests hold a folder, moto, SeaweedFS and Azurite
to one contract, and read `http://` too. `gs://` shares every line of `bucket` and `obstore_client` with them, but no
test here talks to Google.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from special.errors import ConfigurationError
from special.storage.bucket import Bucket
from special.storage.client import StoreClient
from special.storage.local import Folder
from special.storage.retry import RetryPolicy
from special.storage.s3_options import S3Options
from special.storage.source import Source

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

    from special.storage.aws import Account

SCHEMES = ("file", "s3", "az", "gs", "https", "http")
"""What a source's URL may start with; a plain path is a folder, too."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""Names of buckets as Amazon has them, those of old included, and other stores."""


def open_source(
    url: str,
    *,
    create: bool = False,
    retry_policy: RetryPolicy | None = None,
    concurrency: int = 64,
    s3: S3Options | None = None,
) -> Folder | Bucket:
    """The source at a URL: a folder's path, `file://`, `s3://bucket/prefix`, `az://`, `gs://`, `https://`, `http://`.

    `create` makes a folder that is not there; nothing ever makes a bucket. `concurrency`: maximum number of requests
    at once. `s3`: how a bucket of S3 is reached, where the environment does not say it. Raises
    `ConfigurationError`. Asks nothing over the network: `check()` on the source does.
    """
    if s3 is not None and not url.lower().startswith("s3://"):
        raise ConfigurationError(f"'{url}' is no bucket of S3: endpoint, region, profile and the like are for those")
    path = folder_path(url)
    if path is not None:
        return _folder(path, create)
    scheme, _, rest = url.partition("://")
    policy = retry_policy or RetryPolicy()
    match scheme.lower():
        case "s3":
            return _s3(url, rest, policy, concurrency, s3)
        case "az" | "gs" as provider:
            return _azure_or_google(provider, url, rest, policy, concurrency)
        case "https" | "http":
            return _web(url, policy, concurrency)
    known = ", ".join(f"{name}://" for name in SCHEMES)
    raise ConfigurationError(f"'{url}' is no source: use a folder's path or one of {known}")


async def check_source(
    url: str, *, create: bool = False, retry_policy: RetryPolicy | None = None, s3: S3Options | None = None
) -> None:
    """Find out before any work what would make all of it fail: no bucket, no permission, no folder.

    Raises `ConfigurationError`, and says what to do about it.
    """
    source = open_source(url, create=create, retry_policy=retry_policy, s3=s3)
    try:
        await source.check()
    finally:
        await source.close()


@asynccontextmanager
async def learning_absence(*sources: Source) -> AsyncIterator[None]:
    """The time in which sources are used; at its start each bucket finds out what it says of absent keys."""
    tasks = [asyncio.create_task(source.probe_absence()) for source in sources if isinstance(source, Bucket)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def folder_path(url: str) -> Path | None:
    """The folder that a URL or a plain path names; None for a bucket. Raises `ConfigurationError`."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        try:
            return Path(url).expanduser()
        except RuntimeError:
            raise ConfigurationError(f"there is no home directory for {url}: write the whole path") from None
    return _file_path(url) if scheme.lower() == "file" else None


def _folder(path: Path, create: bool) -> Folder:
    if create:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {path} cannot be made: {error.strerror}; name another one") from error
    elif re.match(r"(?:s3|az|gs|https?):", str(path)) and not path.exists():
        scheme, _, name = str(path).partition(":")
        raise ConfigurationError(f"'{path}' is no folder: for a bucket write {scheme}://{name.lstrip('/')}")
    if not path.is_dir():
        what = (
            "is a file, not a folder: name the folder it is in" if path.is_file() else "is not there: create the folder"
        )
        raise ConfigurationError(f"{path} {what}, or name another one")
    return Folder(path)


def _file_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ConfigurationError(f"'{url}' names a folder of another machine: write file:///path with three slashes")
    return Path(unquote(parts.path))


def _container(url: str, rest: str) -> tuple[str, str]:
    """A bucket's name and the prefix in it, with a slash at its end. Never unquoted, as in `aws s3`."""
    name, _, prefix = rest.partition("/")
    if not name:
        raise ConfigurationError(f"'{url}' names no bucket: write {url.partition('://')[0]}://bucket/prefix")
    return name, prefix if not prefix or prefix.endswith("/") else prefix + "/"


def _client_config(retry_policy: RetryPolicy, *, allow_http: bool, certificates: Path | None = None) -> ClientConfig:
    """How obstore talks to a store. Raises `ConfigurationError` for a file of certificates that cannot be read."""
    bundle = certificates or (Path(named) if (named := os.environ.get("SSL_CERT_FILE")) else None)
    config: ClientConfig = {
        "allow_http": allow_http,
        "connect_timeout": timedelta(seconds=retry_policy.connect_s),
        # A large body may take as long as its reader does; `bucket` limits each try itself.
        "read_timeout": timedelta(seconds=retry_policy.deadline_s),
        "timeout": timedelta(days=1),
    }
    if bundle is not None:
        try:
            config["root_certificate"] = bundle.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"the certificates of AWS_CA_BUNDLE or SSL_CERT_FILE cannot be read from {bundle}: {error.strerror}"
            ) from error
    return config


_ONCE: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(0)}
"""obstore retries nothing: `RetryPolicy` does, and counts."""


def _s3(url: str, rest: str, retry_policy: RetryPolicy, concurrency: int, options: S3Options | None) -> Bucket:
    from special.storage.aws import Account
    from special.storage.obstore_client import ObstoreClient

    name, prefix = _container(url, rest)
    if not _BUCKET.fullmatch(name):
        raise ConfigurationError(
            f"'{name}' is no name of a bucket"
            + (": write the access point's alias, which ends in -s3alias" if name.startswith("arn:") else "")
            + f"; it has letters, digits, '.', '-' and '_' alone, as in s3://bucket/prefix (got '{url}')"
        )
    account = Account.from_environment(options or S3Options())
    client = _client_config(retry_policy, allow_http=account.plain_http, certificates=account.certificates)
    store = account.store(name, client=client, retry=_ONCE)
    return Bucket(
        f"s3://{name}/{prefix}",
        ObstoreClient(store),
        prefix=prefix,
        fallback=partial(_botocore_client, name, account, retry_policy, concurrency),
        account=account,
        endpoint=account.endpoint or "",
        retry_policy=retry_policy,
        concurrency=concurrency,
    )


async def _botocore_client(name: str, account: Account, retry_policy: RetryPolicy, concurrency: int) -> StoreClient:
    # Most never need it, and its imports take a third of a second, for which a server's loop must not stand still.
    module = await asyncio.to_thread(import_module, "special.storage.botocore_client")
    client: StoreClient = module.BotocoreClient(name, account, retry_policy=retry_policy, concurrency=concurrency)
    return client


def _azure_or_google(provider: str, url: str, rest: str, retry_policy: RetryPolicy, concurrency: int) -> Bucket:
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore

    from special.storage.obstore_client import ObstoreClient

    name, prefix = _container(url, rest)
    # An emulator, or a gateway on the same machine. obstore takes all else from the environment itself.
    endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT") or ""
    client = _client_config(retry_policy, allow_http=provider == "az" and endpoint.startswith("http://"))
    try:
        store = (
            AzureStore(name, client_options=client, retry_config=_ONCE)
            if provider == "az"
            else GCSStore(name, client_options=client, retry_config=_ONCE)
        )
    except (BaseError, ValueError) as error:
        variables = {
            "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        }[provider]
        raise ConfigurationError(f"{url} cannot be opened: set {variables}") from error
    root = f"{provider}://{name}/{prefix}"
    account = str(store.config.get("account_name", "")) if isinstance(store, AzureStore) else ""
    return Bucket(
        root,
        ObstoreClient(store),
        prefix=prefix,
        endpoint=" ".join(filter(None, (endpoint, account))) if provider == "az" else "",
        retry_policy=retry_policy,
        concurrency=concurrency,
    )


def _web(url: str, retry_policy: RetryPolicy, concurrency: int) -> Bucket:
    from obstore.store import HTTPStore

    from special.storage.obstore_client import ObstoreClient

    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
        raise ConfigurationError(f"'{parts.scheme}://{parts.hostname or ''}…' must be a plain https://host/prefix")
    root = url if url.endswith("/") else url + "/"
    # Without its last slash, which obstore would double.
    store = HTTPStore.from_url(
        root.rstrip("/"),
        client_options=_client_config(retry_policy, allow_http=parts.scheme == "http"),
        retry_config=_ONCE,
    )
    return Bucket(root, ObstoreClient(store), retry_policy=retry_policy, concurrency=concurrency)
