"""State: PostgreSQL or SQLite behind one small interface."""

from penstock.services.database.connection import (
    Database,
    DatabaseUnavailableError,
    StaleEpochError,
    connect,
    is_broken,
    unavailable,
)

__all__ = ["Database", "DatabaseUnavailableError", "StaleEpochError", "connect", "is_broken", "unavailable"]
