"""The engine: reads events, decides, and carries decisions out."""

from penstock.services.engine.service import EngineService

__all__ = ["EngineService"]
