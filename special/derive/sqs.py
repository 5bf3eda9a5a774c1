"""A queue of messages: taken, held while they are worked on, deleted when done.

A message that was taken stays hidden from other workers for a while; unless it is deleted by then it comes again, and
after a few times the queue itself moves it to its dead-letter queue (the redrive policy of an SQS queue).
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from special.errors import ConfigurationError, Denied, Missing, Unreachable

MOST_AT_ONCE = 10
"""What SQS gives in one answer (API reference, ReceiveMessage)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was taken."""

    id: str
    body: str
    receipt: str
    """Proves that we hold it, until the queue delivers it again."""
    times: int
    """How often it has been taken, this time included."""


class MessageQueue(Protocol):
    """Where messages come from."""

    async def take(self, most: int, *, hold_s: int) -> list[Message]:
        """Up to `most` messages, all hidden for `hold_s`; none after a while of silence."""
        ...

    async def hold(self, message: Message, seconds: int) -> None:
        """Hide a message for so long from now on; 0 gives it back."""
        ...

    async def delete(self, message: Message) -> None:
        """It is done."""
        ...


class SqsQueue:
    """A queue of Amazon SQS. botocore is blocking; each call is one hop to a thread."""

    def __init__(self, url: str, *, wait_s: int = 5) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.path.strip("/"):
            raise ConfigurationError(
                f"'{url}' is no queue: give its URL, such as https://sqs.eu-west-1.amazonaws.com/123456789012/name"
            )
        self._url = url
        self._wait_s = wait_s
        self._client = _client(parts.hostname or "")

    async def take(self, most: int, *, hold_s: int) -> list[Message]:
        answer = await self._request(
            "receive_message",
            MaxNumberOfMessages=min(most, MOST_AT_ONCE),
            VisibilityTimeout=hold_s,
            WaitTimeSeconds=self._wait_s,
            AttributeNames=["ApproximateReceiveCount"],
        )
        return [
            Message(it["MessageId"], it["Body"], it["ReceiptHandle"], int(it["Attributes"]["ApproximateReceiveCount"]))
            for it in answer.get("Messages", [])
        ]

    async def hold(self, message: Message, seconds: int) -> None:
        await self._request("change_message_visibility", ReceiptHandle=message.receipt, VisibilityTimeout=seconds)

    async def delete(self, message: Message) -> None:
        await self._request("delete_message", ReceiptHandle=message.receipt)

    async def _request(self, operation: str, **given: object) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return await asyncio.to_thread(getattr(self._client, operation), QueueUrl=self._url, **given)
        except NoCredentialsError:
            raise ConfigurationError(
                "no AWS credentials were found for the queue: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give a role"
            ) from None
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            message = f"the queue {self._url} answered {operation} with {code}"
            if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
                raise Missing(message) from None
            raise (Unreachable if status >= 500 or "Throttl" in code else Denied)(message) from None
        except BotoCoreError as error:
            raise Unreachable(f"the queue {self._url} does not answer: {error}") from None


def _client(host: str) -> Any:
    from botocore.session import Session

    # sqs.{region}.amazonaws.com; elsewhere the usual configuration names region and endpoint.
    name, _, rest = host.partition(".")
    region = rest.partition(".")[0] if name == "sqs" and ".amazonaws." in host else None
    session = Session()
    region = region or os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1"
    session.set_config_variable("region", region)  # with which it asks for a role
    return session.create_client("sqs", region_name=region)
