"""HTTP: events and webhooks in, the API and the page for people."""

from penstock.services.api.keys import create_sign_in, ensure_owner_key, sign_in_link
from penstock.services.api.service import ApiService

__all__ = ["ApiService", "create_sign_in", "ensure_owner_key", "sign_in_link"]
