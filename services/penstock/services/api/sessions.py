"""Sessions: a browser's cookie as a revocable row, made by a one-time sign-in link."""

from __future__ import annotations

import json
import secrets

import sqlalchemy as sa

from penstock.events.instants import SECOND
from penstock.services.api.keys import Identity, digest
from penstock.services.database import Database, clock, tables
from penstock.services.database.records import write_audit

LIFETIME = 12 * 3600 * SECOND  # of a session, microseconds


def cookie_name(https: bool) -> str:
    """`__Host-` binds the cookie to this very host; browsers accept it over https only."""
    return "__Host-penstock" if https else "penstock"


async def sign_in(database: Database, token: str) -> str | None:
    """Spend a sign-in token.  Returns the new session's cookie; None for a token that is unknown, old or spent."""
    link, key = tables.sign_in, tables.api_key
    spend = (
        sa.update(link)
        .where(link.c.hash == digest(token), link.c.used.is_(None), link.c.expires_at > clock.now())
        .values(used=clock.now())
        .returning(link.c.key_id)
    )
    cookie = secrets.token_urlsafe(32)
    async with database.begin() as connection:
        key_id = (await connection.execute(spend)).scalar()
        owner = sa.select(key.c.namespace, key.c.actor).where(key.c.id == key_id, key.c.revoked.is_(None))
        found = (await connection.execute(owner)).one_or_none() if key_id else None
        if found is None:
            return None
        row = {"hash": digest(cookie), "namespace": found.namespace, "key_id": key_id, "actor": found.actor}
        times = {"created": clock.now(), "expires_at": clock.now() + LIFETIME}
        await connection.execute(sa.insert(tables.session).values(csrf=secrets.token_urlsafe(32), **row, **times))
        await write_audit(
            connection,
            namespace=found.namespace,
            actor=found.actor,
            action="session.created",
            object_=f"key/{key_id}",
        )
    return cookie


async def find_session(database: Database, cookie: str) -> Identity | None:
    """Who a cookie belongs to; None for one that is unknown or expired, or whose key is revoked."""
    row, key = tables.session, tables.api_key
    query = (
        sa.select(row.c.key_id, row.c.namespace, row.c.actor, row.c.csrf, key.c.roles)
        .join(key, key.c.id == row.c.key_id)
        .where(row.c.hash == digest(cookie), row.c.expires_at > clock.now(), key.c.revoked.is_(None))
    )
    async with database.read() as connection:
        found = (await connection.execute(query)).one_or_none()
    if found is None:
        return None
    return Identity(found.key_id, found.namespace, found.actor, frozenset(json.loads(found.roles)), found.csrf)


async def sign_out(database: Database, cookie: str, identity: Identity) -> None:
    """End a session; expired ones are swept out with it."""
    row = tables.session
    async with database.begin() as connection:
        gone = sa.or_(row.c.hash == digest(cookie), row.c.expires_at <= clock.now())
        await connection.execute(sa.delete(row).where(gone))
        await write_audit(
            connection,
            namespace=identity.namespace,
            actor=identity.actor,
            action="session.ended",
            object_=f"key/{identity.key_id}",
        )
