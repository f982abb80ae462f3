"""Tests of Ray only where it is installed; a local S3."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from moto.server import ThreadedMotoServer

collect_ignore = [] if find_spec("ray") else ["test_on_ray.py"]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3-compatible server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
