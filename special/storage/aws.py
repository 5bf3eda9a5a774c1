"""Endpoint, region and credentials of S3, found as boto3 finds them.

Environment, profiles, roles, web identities, containers, instances: whatever works for the `aws` command works
here, endpoints and regions included. Nothing is asked over the network before the first request.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from botocore.utils import ensure_boolean
from obstore.store import S3Store

from special.errors import ConfigurationError
from special.storage.s3_options import S3Options

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

LIFETIME = timedelta(minutes=15)
"""How long obstore may keep credentials: it asks again after 10 minutes, and botocore gives none that end sooner."""
NO_CREDENTIALS = (
    "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give"
    " this machine a role; for a public bucket set AWS_NO_SIGN_REQUEST=yes"
)


@dataclass(frozen=True, slots=True)
class Account:
    """One reading of the AWS configuration."""

    session: Session
    region: str
    endpoint: str | None
    """URL of another S3 than Amazon's."""
    anonymous: bool
    """Requests are not signed."""
    path_style: bool
    """Whether the bucket's name goes into the path of a URL and not into its host."""
    requester_pays: bool = False
    """Whether this account pays for what it reads, as the bucket's owner demands."""

    @property
    def plain_http(self) -> bool:
        """Whether the endpoint is reached without TLS."""
        return self.endpoint is not None and self.endpoint.startswith("http://")

    @classmethod
    def from_environment(cls, options: S3Options = S3Options()) -> Account:  # noqa: B008 - immutable
        """What the environment and the AWS configuration files say, unless `options` says otherwise.

        Raises `ConfigurationError`.
        """
        session = Session(profile=options.profile)
        try:
            profile: dict[str, Any] = session.get_scoped_config()
            endpoint = options.endpoint.rstrip("/") if options.endpoint else _endpoint(session)
            # botocore itself reads only AWS_DEFAULT_REGION; every other SDK, and Amazon's own machines, say AWS_REGION.
            # A profile that is named says more than the environment, which is of another account.
            ambient = os.environ.get("AWS_REGION") if options.profile is None else None
            region = options.region or ambient or session.get_config_variable("region") or "us-east-1"
        except BotoCoreError as error:
            raise ConfigurationError(f"the AWS configuration cannot be used: {error}") from error
        style = (profile.get("s3") or {}).get("addressing_style", "auto")
        return cls(
            session=session,
            region=region,
            endpoint=endpoint,
            anonymous=_never_signs() if options.anonymous is None else options.anonymous,
            path_style=style == "path" or (style == "auto" and endpoint is not None),
            requester_pays=options.requester_pays,
        )

    async def credentials(self) -> S3Credential:
        """Credentials of the moment. Raises `ConfigurationError` if there are none.

        May ask a role's or an instance's credential service, in a thread.
        """
        return await asyncio.to_thread(self._credentials)

    def _credentials(self) -> S3Credential:
        try:
            found = self.session.get_credentials()
            if found is None:
                raise ConfigurationError(NO_CREDENTIALS)
            frozen = found.get_frozen_credentials()
        except BotoCoreError as error:
            raise ConfigurationError(f"the AWS credentials cannot be used: {error}") from error
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + LIFETIME,
        }

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


def _never_signs() -> bool:
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes", "on")


def _endpoint(session: Session) -> str | None:
    if ensure_boolean(session.get_config_variable("ignore_configured_endpoint_urls") or False):
        return None
    found = ConfiguredEndpointProvider(
        full_config=session.full_config, scoped_config=session.get_scoped_config(), client_name="s3"
    ).provide()
    return str(found).rstrip("/") if found else None
