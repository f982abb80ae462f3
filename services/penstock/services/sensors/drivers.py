"""Which driver a sensor of the rules has."""

from __future__ import annotations

from typing import TypeAlias

from penstock.automations.resources import HostSensor, MqttSensor
from penstock.automations.secrets import Lookup
from penstock.events.sensors import Driver
from penstock.services.sensors.host import HostDriver
from penstock.services.sensors.mqtt import MqttDriver

Sensor: TypeAlias = HostSensor | MqttSensor


def make_driver(key: tuple[str, str], sensor: Sensor, secrets: Lookup) -> Driver:
    """The driver for a definition, not yet connected."""
    if isinstance(sensor, HostSensor):
        return HostDriver(sensor)
    return MqttDriver(key, sensor, secrets)
