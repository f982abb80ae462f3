"""Keys: who somebody is, as a row; the key itself is known to its bearer alone."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.events.ids import new_id
from penstock.events.instants import SECOND
from penstock.services.database import Database, clock, tables
from penstock.services.database.records import write_audit
from penstock.services.settings import Settings

Role = Literal["viewer", "operator", "approver", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
OWNER = "user/owner"
KEY_PREFIX = "pk"  # what every key begins with
SIGN_IN_LIFETIME = 15 * 60 * SECOND  # of a sign-in link, microseconds

_IMPLIED: dict[str, frozenset[str]] = {
    "viewer": frozenset({"viewer"}),
    "operator": frozenset({"viewer", "operator"}),
    "approver": frozenset({"viewer", "approver"}),
    "admin": frozenset(ROLES),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request. csrf: the token that writes of a session must carry; None for a bearer of a key."""

    key_id: str
    namespace: str
    actor: str  # "user/ann"
    roles: frozenset[str]
    csrf: str | None = None

    def may(self, role: Role) -> bool:
        """Whether it has the role, or one that implies it."""
        return any(role in _IMPLIED.get(held, frozenset()) for held in self.roles)


def digest(secret: str) -> str:
    """What is stored of a secret with 256 random bits: SHA-256, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def create_key(
    connection: AsyncConnection, *, namespace: str, actor: str, roles: tuple[Role, ...], by: str
) -> str:
    """Make a key in the caller's transaction.  Returns it in clear: nobody can read it again."""
    prefix = secrets.token_hex(4)
    key = f"{KEY_PREFIX}_{prefix}_{secrets.token_urlsafe(32)}"
    row = {"id": new_id(), "namespace": namespace, "prefix": prefix, "hash": digest(key), "actor": actor}
    await connection.execute(sa.insert(tables.api_key).values(created=clock.now(), roles=json.dumps(roles), **row))
    detail = {"prefix": prefix, "actor": actor, "roles": roles}
    await write_audit(
        connection, namespace=namespace, actor=by, action="key.created", object_=f"key/{row['id']}", detail=detail
    )
    return key


async def find_key(database: Database, key: str) -> Identity | None:
    """The bearer of a key; None for one that is unknown or revoked."""
    parts = key.split("_", 2)
    if len(parts) != 3 or parts[0] != KEY_PREFIX:
        return None
    row = tables.api_key
    query = sa.select(row).where(row.c.prefix == parts[1], row.c.revoked.is_(None))
    async with database.read() as connection:
        found = (await connection.execute(query)).mappings().one_or_none()
    if found is None or not hmac.compare_digest(found["hash"], digest(key)):
        return None
    return Identity(found["id"], found["namespace"], found["actor"], frozenset(json.loads(found["roles"])))


async def list_keys(connection: AsyncConnection, namespace: str) -> list[dict[str, Any]]:
    """Every key of a namespace without its hash, the newest first; revoked ones too."""
    row = tables.api_key
    columns = (row.c.id, row.c.prefix, row.c.actor, row.c.roles, row.c.created, row.c.revoked)
    query = sa.select(*columns).where(row.c.namespace == namespace).order_by(row.c.created.desc(), row.c.id.desc())
    found = (await connection.execute(query)).mappings()
    return [dict(each) | {"roles": json.loads(each["roles"])} for each in found]


async def revoke_key(connection: AsyncConnection, key_id: str, *, namespace: str, by: str) -> str | None:
    """End a key in the caller's transaction.  Returns whose it was; None where there is none that is in force."""
    row = tables.api_key
    update = sa.update(row).where(row.c.id == key_id, row.c.namespace == namespace, row.c.revoked.is_(None))
    actor: str | None = (await connection.execute(update.values(revoked=clock.now()).returning(row.c.actor))).scalar()
    if actor is not None:
        detail = {"actor": actor}
        await write_audit(
            connection, namespace=namespace, actor=by, action="key.revoked", object_=f"key/{key_id}", detail=detail
        )
    return actor


async def ensure_owner_key(database: Database, settings: Settings) -> str | None:
    """At the very first start: make the owner's key and return it in clear, once.  Later: None."""
    query = sa.select(tables.api_key.c.id).where(tables.api_key.c.namespace == settings.namespace).limit(1)
    async with database.begin() as connection:
        if not database.is_sqlite:  # two processes that start at once must not both make one
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x70656B79)))
        if (await connection.execute(query)).first() is not None:
            return None
        roles: tuple[Role, ...] = ("admin", "approver", "operator", "viewer")
        return await create_key(connection, namespace=settings.namespace, actor=OWNER, roles=roles, by="system")


async def create_sign_in(database: Database, key_id: str, *, namespace: str, by: str) -> str:
    """A one-time token for `/sign-in?token=…`, good for a quarter of an hour."""
    token = secrets.token_urlsafe(32)
    row = {"hash": digest(token), "namespace": namespace, "key_id": key_id}
    async with database.begin() as connection:
        await connection.execute(sa.insert(tables.sign_in).values(expires_at=clock.now() + SIGN_IN_LIFETIME, **row))
        await write_audit(connection, namespace=namespace, actor=by, action="sign_in.created", object_=f"key/{key_id}")
    return token


async def sign_in_link(database: Database, settings: Settings) -> str:
    """The path of a one-time link for the owner, for whoever stands at the machine: "/sign-in?token=…".

    Without an owner's key it is the page that says how to sign in.
    """
    row = tables.api_key
    query = (
        sa.select(row.c.id)
        .where(row.c.namespace == settings.namespace, row.c.actor == OWNER, row.c.revoked.is_(None))
        .order_by(row.c.created)
        .limit(1)
    )
    async with database.read() as connection:
        key_id = (await connection.execute(query)).scalar()
    if key_id is None:
        return "/sign-in"
    token = await create_sign_in(database, key_id, namespace=settings.namespace, by="system")
    return f"/sign-in?token={token}"
