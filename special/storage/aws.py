"""Endpoint, region and credentials of S3, found as boto3 finds them.

Environment, profiles, roles, web identities, containers, instances: whatever works for the `aws` command works
here, endpoints, regions and certificates included. Nothing is asked over the network before the first request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from botocore.utils import ensure_boolean
from obstore.store import S3Store

from special.errors import ConfigurationError
from special.storage.client import one_line
from special.storage.s3_options import S3Options

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

LIFETIME: Final = timedelta(minutes=5, seconds=30)
"""How long obstore may keep credentials. It asks again when 5 minutes are left: rewritten ones count after 30 s."""
NO_CREDENTIALS = (
    "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give"
    " this machine a role; for a public bucket set AWS_NO_SIGN_REQUEST=yes"
)


class CredentialChain:
    """botocore's chain of providers, read again when a file that credentials come from was rewritten."""

    def __init__(self, session: Session, region: str) -> None:
        self._session = session
        self._region = region
        self._found_in: tuple[tuple[int, int] | None, ...] = ()
        """Time and size of the files, as they were when the chain was last read."""
        self._lock = threading.Lock()

    def current(self) -> ReadOnlyCredentials:
        """Credentials of the moment. Raises `ConfigurationError`. May ask a role's or an instance's service."""
        try:
            with self._lock:
                files = tuple(_stamp(self._session, name) for name in ("credentials_file", "config_file"))
                if files != self._found_in:
                    self._session = Session(profile=self._session.profile)
                    # Of AWS_REGION botocore knows nothing, and without a region it cannot ask for a role.
                    self._session.set_config_variable("region", self._region)
                    self._found_in = files
                found = self._session.get_credentials()
                frozen = found.get_frozen_credentials() if found else None
        except EOFError:
            raise ConfigurationError(
                "the AWS profile asks for an MFA code, which a server cannot type: name a profile without "
                "mfa_serial, or export credentials with `aws sts get-session-token`"
            ) from None
        except JSONDecodeError as error:
            raise ConfigurationError(
                "the AWS credentials cannot be used: credential_process, or the service that is asked, gave no JSON"
            ) from error
        except Exception as error:  # each provider raises what it likes: OSError, ValueError, KeyError, its own
            reason = one_line(str(error)).rstrip(": ") or type(error).__name__
            raise ConfigurationError(f"the AWS credentials cannot be used: {reason}") from error
        if frozen is None:
            raise ConfigurationError(NO_CREDENTIALS)
        return frozen


def _stamp(session: Session, variable: str) -> tuple[int, int] | None:
    try:
        found = Path(session.get_config_variable(variable)).expanduser().stat()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home directory
        return None
    return found.st_mtime_ns, found.st_size


@dataclass(frozen=True, slots=True)
class Account:
    """One reading of the AWS configuration."""

    chain: CredentialChain
    region: str
    endpoint: str | None
    """URL of another S3 than Amazon's."""
    anonymous: bool
    """Requests are not signed."""
    path_style: bool
    """Whether the bucket's name goes into the path of a URL and not into its host."""
    requester_pays: bool = False
    """Whether this account pays for what it reads of a bucket of others."""
    certificates: Path | None = None
    """File of certificates that are trusted besides, in PEM."""

    @property
    def plain_http(self) -> bool:
        """Whether the endpoint is reached without TLS."""
        return self.endpoint is not None and self.endpoint.startswith("http://")

    @classmethod
    def from_environment(cls, options: S3Options = S3Options()) -> Account:  # noqa: B008 - immutable
        """What the environment and the AWS configuration files say, unless `options` says otherwise.

        Raises `ConfigurationError`.
        """
        if os.environ.get("AWS_PROFILE") == "":
            del os.environ["AWS_PROFILE"]  # Compose sets what is not set to nothing, which botocore takes for a name
        # They warn with a traceback of what they raise as well.
        for name in ("botocore.credentials", "botocore.tokens"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            session = Session(profile=options.profile)
            profile: dict[str, Any] = session.get_scoped_config()
            endpoint = options.endpoint.rstrip("/") if options.endpoint else _endpoint(session)
            # botocore itself reads only AWS_DEFAULT_REGION; every other SDK, and Amazon's own machines, say AWS_REGION.
            # A profile that is named says more than the environment, which is of another account.
            ambient = os.environ.get("AWS_REGION") if options.profile is None else None
            region = options.region or ambient or session.get_config_variable("region") or "us-east-1"
            bundle = session.get_config_variable("ca_bundle") or os.environ.get("SSL_CERT_FILE")
        except BotoCoreError as error:
            raise ConfigurationError(f"the AWS configuration cannot be used: {one_line(str(error))}") from error
        style = (profile.get("s3") or {}).get("addressing_style", "auto")
        return cls(
            chain=CredentialChain(session, region),
            region=region,
            endpoint=endpoint,
            anonymous=_is_set("AWS_NO_SIGN_REQUEST") if options.anonymous is None else options.anonymous,
            path_style=style == "path" or (style == "auto" and endpoint is not None),
            requester_pays=options.requester_pays or _is_set("AWS_REQUESTER_PAYS"),
            certificates=Path(bundle) if bundle else None,
        )

    async def credentials(self) -> S3Credential:
        """Credentials of the moment. Raises `ConfigurationError` if there are none.

        May ask a role's or an instance's credential service, in a thread.
        """
        found = await self.read_only_credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + LIFETIME,
        }

    async def read_only_credentials(self) -> ReadOnlyCredentials:
        """The same, as botocore has them."""
        return await asyncio.to_thread(self.chain.current)

    def store(self, bucket: str, *, client: ClientConfig, retry: RetryConfig) -> S3Store:
        """The bucket through obstore, with these settings and credentials rather than those of the environment."""
        # A certificate for *.s3.amazonaws.com covers no bucket whose name has a dot.
        path_style = self.path_style or "." in bucket
        url = self.endpoint or f"https://s3.{self.region}.amazonaws.com{'.cn' if self.region.startswith('cn-') else ''}"
        if not path_style:
            url = url.replace("://", f"://{bucket}.", 1)
        config: S3Config = {
            "region": self.region,
            "endpoint": url,
            "aws_endpoint_url_s3": url,
            "virtual_hosted_style_request": not path_style,
            "skip_signature": self.anonymous,
            "disable_bulk_delete": True,
            "request_payer": self.requester_pays,
        }
        provider = None if self.anonymous else self.credentials
        return S3Store(bucket, config=config, client_options=client, retry_config=retry, credential_provider=provider)


def _endpoint(session: Session) -> str | None:
    if ensure_boolean(session.get_config_variable("ignore_configured_endpoint_urls") or False):
        return None
    found = ConfiguredEndpointProvider(
        full_config=session.full_config, scoped_config=session.get_scoped_config(), client_name="s3"
    ).provide()
    if not found:
        return None
    url = urlsplit(found)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or any(map(str.isspace, found)):
        raise ConfigurationError(
            f"the S3 endpoint '{found}' is no address: write AWS_ENDPOINT_URL=https://host:port, with https:// or "
            "http:// and without blanks"
        )
    return str(found).rstrip("/")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
