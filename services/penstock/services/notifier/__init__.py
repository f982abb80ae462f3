"""The notifier: sends what firings notify, by Slack and SMS, once per delivery as far as a network allows."""

from penstock.services.notifier.service import NotifierService

__all__ = ["NotifierService"]
