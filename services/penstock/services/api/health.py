"""`/health`: the process lives; `/health/ready`: it can do its job."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from penstock.services.api.state import Api, api_of

router = APIRouter(tags=["health"])
_PATIENCE = 3.0  # seconds for a dependency to answer


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether this process answers."""
    return {"status": "ok"}


@router.get("/health/ready")
async def ready(request: Request) -> JSONResponse:
    """Whether the bus and the database answer; 503 where one does not."""
    api = api_of(request)
    bus, database = await asyncio.gather(_bus(api), _database(api))
    ok = bus and database
    body = {"status": "ok" if ok else "unavailable", "bus": bus, "database": database}
    return JSONResponse(body, HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)


async def _bus(api: Api) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await api.context.bus.healthy()
    except (TimeoutError, OSError):
        return False


async def _database(api: Api) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE), api.context.database.read() as connection:
            await connection.execute(sa.text("SELECT 1"))
    except (TimeoutError, OSError, SQLAlchemyError):
        return False
    return True
