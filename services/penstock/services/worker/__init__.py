"""The worker: claims runs, and carries them out in warm child processes.

A child imports this package too, and nothing of the server: so the service is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.services.worker.service import WorkerService

__all__ = ["WorkerService"]


def __getattr__(name: str) -> Any:
    if name != "WorkerService":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from penstock.services.worker.service import WorkerService

    return WorkerService
