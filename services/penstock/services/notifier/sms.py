"""SMS, by Twilio's REST API: one request a recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from penstock.services.notifier.sending import SEND_WITHIN, Check, Keep, RefusedError, RetryError, Text

_TWILIO = "https://api.twilio.com"


@dataclass(frozen=True, slots=True)
class Account:
    """A Twilio account with its number; `token` is a secret."""

    sid: str
    token: str
    sender: str
    base_url: str | None


class Sms:
    """Two HTTP clients, one of which knows no proxy: for base URLs of the user's own.  Close it."""

    def __init__(self, within: float = SEND_WITHIN) -> None:
        """within: seconds for one request."""
        self._through = httpx.AsyncClient(timeout=within)
        self._direct = httpx.AsyncClient(timeout=within, trust_env=False)

    async def send(
        self, text: Text, *, account: Account, recipients: Sequence[str], check: Check, keep: Keep
    ) -> dict[str, Any]:
        """Send to each recipient that has not been sent to; returns {recipients: {number: {sid} or {error}}}.

        What was achieved is kept after each recipient.  Raises RetryError where one is left to try again (the others
        have been sent to), RefusedError where none is left and one was refused, and whatever `check` and `keep` raise.
        """
        done: dict[str, Any] = dict(text.progress.get("recipients", {}))
        again: RetryError | None = None
        for number in recipients:
            if number in done:
                continue
            check()
            try:
                done[number] = {"sid": await self._post(text, account, number)}
            except RefusedError as error:
                done[number] = {"error": str(error)}
            except RetryError as error:
                again = error
                continue
            await keep({"recipients": done})
        if again is not None:
            raise again
        refused = [f"{number}: {answer['error']}" for number, answer in done.items() if "error" in answer]
        if refused:
            raise RefusedError("; ".join(refused))
        return {"recipients": done}

    async def close(self) -> None:
        """Safe to call twice."""
        await self._through.aclose()
        await self._direct.aclose()

    async def _post(self, text: Text, account: Account, number: str) -> str:
        client = self._through if account.base_url is None else self._direct
        base = (account.base_url or _TWILIO).rstrip("/")
        body = f"{text.title}\n{text.text}" if text.title else text.text
        try:
            response = await client.post(
                f"{base}/2010-04-01/Accounts/{account.sid}/Messages.json",
                data={"To": number, "From": account.sender, "Body": body},
                auth=(account.sid, account.token),
            )
        except httpx.HTTPError as error:
            raise RetryError(f"Twilio could not be asked: {error!r}") from error
        if response.is_success:
            return str(_json(response).get("sid", ""))
        raise _explained(response)


def _json(response: httpx.Response) -> Mapping[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _explained(response: httpx.Response) -> RefusedError | RetryError:
    answer = _json(response)
    reason = f"Twilio answered {response.status_code} {answer.get('code', '')} {answer.get('message', '')}".strip()
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        after = response.headers.get("retry-after", "")
        return RetryError(reason, timedelta(seconds=int(after) if after.isdigit() else 0))
    return RefusedError(reason)
