"""What went wrong, as the one line that a command ends with; a fault of ours is none of these, and keeps its stack."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from penstock.events.errors import PenstockError


def complaint(error: BaseException) -> str | None:
    """The line for people, or None where it is a fault in the program."""
    for leaf in _leaves(error):
        if isinstance(leaf, PenstockError):
            return str(leaf)
    for leaf in _leaves(error):
        if isinstance(leaf, OSError):
            return _line(str(leaf))
        if told := _of_settings(leaf) or _of_database(leaf):
            return told
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _of_settings(error: BaseException) -> str | None:
    """A setting with a bad value, by the name of its variable.  The value is not shown: it may be a secret."""
    if "pydantic" not in sys.modules:
        return None
    from pydantic import ValidationError

    if not isinstance(error, ValidationError) or error.title != "Settings":
        return None
    told = [f"{_setting(str(each['loc'][0]))}: {each['msg']}" for each in error.errors(include_url=False)]
    return "; ".join(told)


def _setting(field: str) -> str:
    option = f" (--{field.replace('_', '-')})" if field in ("port", "data_dir") else ""
    return f"PENSTOCK_{field.upper()}{option}"


def _of_database(error: BaseException) -> str | None:
    """A database that cannot be reached, is not there, or lets us not in."""
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy.exc import DBAPIError

    from penstock.services.database import unavailable

    if isinstance(error, DBAPIError) and error.orig is not None and (error.statement is None or unavailable(error)):
        return _line(f"the database cannot be used: {error.orig}; see PENSTOCK_DATABASE_URL")
    if type(error).__module__.startswith("asyncpg."):  # while connecting they come as they are
        return _line(f"the database cannot be used: {error}; see PENSTOCK_DATABASE_URL")
    return None


def _line(text: str) -> str:
    return " ".join(text.split())
