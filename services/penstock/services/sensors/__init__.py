"""Sensors: drivers that turn what they observe into events, and the supervisor that keeps them going."""

from penstock.services.sensors.service import SensorsService

__all__ = ["SensorsService"]
