"""From a claimed row to the provider: the channel, its rate, the secrets, the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from penstock.automations import RuleSet, UnknownSecretError, mask, reveal
from penstock.automations.resources import Channel
from penstock.automations.secrets import Lookup
from penstock.services.deliveries import Delivery, Message
from penstock.services.limits import Limits, LimitSpec, LimitsUnavailableError
from penstock.services.notifier.sending import (
    Keep,
    LeaseTooShortError,
    RefusedError,
    SendError,
    Span,
    Text,
)
from penstock.services.notifier.slack import Slack
from penstock.services.notifier.sms import Account, Sms
from penstock.services.rulebook import RuleBook

_REDIS_AWAY = timedelta(seconds=1)


class ParkedError(SendError):
    """Its destination has had its share for now.  wait: until its turn."""

    def __init__(self, wait: timedelta, limit: str) -> None:
        self.wait = wait
        super().__init__(f"{limit} has had its share; due again in {wait.total_seconds():g} s")


@dataclass
class Revealed:
    """A lookup that remembers what it gave out, so that it can be blotted out of whatever comes back."""

    lookup: Lookup
    values: set[str] = field(default_factory=set)

    def __call__(self, name: str) -> str:
        """A secret's clear value.  Raises UnknownSecretError."""
        value = self.lookup(name)
        self.values.add(value)
        return value

    def masked(self, value: Any) -> Any:
        """Text or JSON without the secrets given out so far."""
        if isinstance(value, str):
            return mask(value, self.values)
        if isinstance(value, Mapping):
            return {self.masked(key): self.masked(item) for key, item in value.items()}
        return [self.masked(item) for item in value] if isinstance(value, list | tuple) else value


class Sender:
    """Shared by all deliveries of one notifier.  Close it."""

    def __init__(
        self, rulebook: RuleBook, limits: Limits, *, span: Span, slack_url: str = "", twilio_url: str = ""
    ) -> None:
        """slack_url, twilio_url: for channels without `base_url`; "" is the provider's own address."""
        self._rulebook, self._limits = rulebook, limits
        self._slack_url, self._twilio_url = slack_url or None, twilio_url or None
        self._span = span
        self._slack, self._sms = Slack(span.request), Sms(span.request)

    async def send(
        self, delivery: Delivery, message: Message, secrets: Revealed, keep: Callable[[Any], Awaitable[None]]
    ) -> Mapping[str, Any]:
        """Send one delivery; returns the provider's answer.

        Raises ParkedError, LeaseTooShortError, RefusedError, RetryError, and whatever `keep` raises.
        """
        channel, rules = await self._channel(delivery)
        numbers = _numbers(channel, rules, delivery.namespace)
        done = delivery.progress.get("recipients", {})
        await self._take_turn(channel, [number for number in numbers if number not in done], delivery)
        try:
            text = _text(delivery, message, secrets)
            return await self._post(delivery, channel, numbers, text, secrets, keep)
        except UnknownSecretError as error:
            raise RefusedError(str(error)) from error

    async def forget(self, delivery: Delivery) -> None:
        """It will not ask for a turn again.  Raises LimitsUnavailableError."""
        await self._limits.forget(delivery.id)

    async def close(self) -> None:
        """Let go of all connections; safe to call twice."""
        await self._slack.close()
        await self._sms.close()

    async def _channel(self, delivery: Delivery) -> tuple[Channel, RuleSet]:
        rules = self._rulebook.current.rules
        name = delivery.namespace, delivery.channel
        if name not in rules.channels:
            rules = (await self._rulebook.refresh()).rules
        try:
            return rules.channels[name], rules
        except KeyError:
            raise RefusedError(
                f"there is no channel {delivery.channel!r} in the rules any more; define it under `channels:`"
            ) from None

    async def _take_turn(self, channel: Channel, numbers: Sequence[str], delivery: Delivery) -> None:
        names = [f"channel/{channel.name}"] if channel.slack else [f"channel/{channel.name}/{to}" for to in numbers]
        try:
            taken = await self._limits.take([LimitSpec(name, channel.rate) for name in names], holder=delivery.id)
        except LimitsUnavailableError as error:
            raise ParkedError(_REDIS_AWAY, "Redis, which does not answer,") from error
        if not taken.allowed:
            raise ParkedError(taken.wait, taken.limit)

    async def _post(
        self, delivery: Delivery, channel: Channel, numbers: Sequence[str], text: Text, secrets: Revealed, keep: Keep
    ) -> dict[str, Any]:
        def check() -> None:
            if not delivery.covers(self._span.needed):
                raise LeaseTooShortError("what is left of the lease does not cover a request")

        if channel.slack is not None:
            token = channel.slack.token.clear(secrets)
            return await self._slack.send(
                text,
                channel=channel.slack.channel,
                token=token,
                base_url=channel.base_url or self._slack_url,
                check=check,
            )
        if channel.sms is None:
            raise RefusedError(f"channel {channel.name!r} is neither slack nor sms")
        sms = channel.sms
        account = Account(sms.account, sms.token.clear(secrets), sms.from_, channel.base_url or self._twilio_url)
        return await self._sms.send(text, account=account, recipients=numbers, check=check, keep=keep)


def read_message(delivery: Delivery) -> Message:
    """The message in the row.  Raises RefusedError for one of another format."""
    try:
        return msgspec.json.decode(delivery.body, type=Message)
    except msgspec.MsgspecError as error:
        raise RefusedError(f"the row holds no message that this version reads: {error}") from error


def _text(delivery: Delivery, message: Message, secrets: Revealed) -> Text:
    text, title = reveal([message.text, message.title], delivery.nonce, secrets)
    return Text(delivery.id, text, title, delivery.progress)


def _numbers(channel: Channel, rules: RuleSet, namespace: str) -> list[str]:
    """The numbers of an SMS channel, each once.  Raises RefusedError for a person without one."""
    found: list[str] = []
    for to in channel.sms.to if channel.sms else ():
        number = to
        if to.startswith("user/"):
            user = rules.users.get((namespace, to.removeprefix("user/")))
            if user is None or user.phone is None:
                raise RefusedError(f"channel {channel.name!r}: {to} has no `phone`; add one under `users:`")
            number = user.phone
        if number not in found:
            found.append(number)
    return found
