"""Slack, by chat.postMessage with a bot token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from penstock.services.notifier.sending import SEND_WITHIN, Check, RefusedError, RetryError, Text

_SLACK = "https://slack.com/api/"
_deadline: ContextVar[float] = ContextVar("penstock_slack_deadline")  # of the request, on the monotonic clock
# Errors that pass: everything else that Slack names needs a person.
_PASSING = frozenset({"internal_error", "fatal_error", "service_unavailable", "ratelimited", "request_timeout"})


def api_url(base_url: str | None) -> str:
    """Where the API is; a base URL without a path gets Slack's own, `/api/`."""
    if base_url is None:
        return _SLACK
    bare = urlsplit(base_url).path in ("", "/")
    return base_url.rstrip("/") + ("/api/" if bare else "/")


class Slack:
    """One HTTP session for all channels and tokens.  Close it."""

    def __init__(self, within: float = SEND_WITHIN) -> None:
        """within: seconds for one request."""
        self._within = within
        self._session: aiohttp.ClientSession | None = None

    async def send(self, text: Text, *, channel: str, token: str, base_url: str | None, check: Check) -> dict[str, Any]:
        """Post one message; returns {channel, ts}.  Raises RefusedError, RetryError, and whatever `check` raises.

        A 429 with a short Retry-After is waited for here, a longer one by the row.
        """
        client = self._client(token, base_url)
        _deadline.set(time.monotonic() + self._within)
        check()
        try:
            async with asyncio.timeout(self._within):
                answer = await client.chat_postMessage(
                    channel=channel,
                    text=f"*{text.title}*\n{text.text}" if text.title else text.text,
                    client_msg_id=text.client_id,
                    metadata={
                        "event_type": "penstock_delivery",
                        "event_payload": {"delivery": text.id, "id": text.client_id},
                    },
                )
        except SlackApiError as error:
            raise _explained(error) from error
        except TimeoutError as error:
            raise RetryError(f"Slack did not answer within {self._within:g} s") from error
        except (aiohttp.ClientError, OSError, SlackClientError) as error:
            raise RetryError(f"Slack could not be asked: {error!r}") from error
        return {"channel": answer.get("channel"), "ts": answer.get("ts")}

    async def close(self) -> None:
        """Safe to call twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self, token: str, base_url: str | None) -> AsyncWebClient:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._within), request_class=_InTime
            )
        client = AsyncWebClient(
            token=token,
            base_url=api_url(base_url),
            session=self._session,
            retry_handlers=[_ShortRateLimit(max_retry_count=1)],
        )
        if base_url is not None:
            client.proxy = None  # a base URL of the user's own is reached directly; slack-sdk knows no NO_PROXY
        return client


class _InTime(aiohttp.ClientRequest):
    """Looks at the clock once more when its bytes are about to leave.

    A process that was stopped after its `check` and goes on later finds the request's bytes ready to be written, before
    its timers have run: somebody else may have sent the message by then.
    """

    async def write_bytes(self, writer: AbstractStreamWriter, conn: Connection, length: int | None = None) -> None:
        if time.monotonic() < _deadline.get():
            await super().write_bytes(writer, conn, length)
        elif conn.protocol is not None:
            conn.protocol.set_exception(TimeoutError("its time had run out before it was sent"))


class _ShortRateLimit(AsyncRateLimitErrorRetryHandler):
    """Waits for Slack's Retry-After while that is short: a long one would outlast the lease."""

    longest = 2

    async def _can_retry_async(self, *, response: Any = None, **rest: Any) -> bool:
        limited = await super()._can_retry_async(response=response, **rest)
        return limited and _retry_after(response.headers) <= timedelta(seconds=self.longest)


def _retry_after(headers: Mapping[str, Any]) -> timedelta:
    found: Any = next((value for name, value in headers.items() if name.lower() == "retry-after"), "1")
    text = str(found[0] if isinstance(found, list) else found)
    return timedelta(seconds=int(text) if text.isdigit() else 1)


def _explained(error: SlackApiError) -> RefusedError | RetryError:
    response: Any = error.response
    status = int(getattr(response, "status_code", None) or getattr(response, "status", None) or 0)
    data = getattr(response, "data", None)
    code = str(data.get("error", "")) if isinstance(data, dict) else ""
    reason = f"Slack answered {status} {code or str(error)[:200]}".strip()
    if status == 429:
        return RetryError(reason, _retry_after(response.headers))
    if status >= 500 or status == 408 or code in _PASSING:
        return RetryError(reason)
    return RefusedError(f"{reason}; see https://api.slack.com/methods/chat.postMessage#errors")
