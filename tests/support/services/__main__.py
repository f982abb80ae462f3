"""`make services`: start all test services, print their URLs as shell exports, and keep them until Ctrl-C.

`make services-stop` ends them from elsewhere: the process writes its number to .cache/services.pid.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from tests.support.services.process import ServiceFailedError, ServiceMissingError
from tests.support.services.provide import (
    KAFKA,
    MQTT,
    POSTGRES,
    REDIS,
    provide_kafka,
    provide_mosquitto,
    provide_postgres,
    provide_redis,
)

PID_FILE = Path(__file__).parents[3] / ".cache" / "services.pid"


def main() -> None:
    """Start, print, wait for SIGINT or SIGTERM, stop."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _start(stack)
            signal.pause()
    except (ServiceMissingError, ServiceFailedError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def _start(stack: ExitStack) -> None:
    PID_FILE.parent.mkdir(parents=True, exist_ok=True)
    PID_FILE.write_text(str(os.getpid()))
    stack.callback(PID_FILE.unlink, missing_ok=True)
    print(f"export {REDIS}={stack.enter_context(provide_redis()).url}", flush=True)
    print(f"export {POSTGRES}={stack.enter_context(provide_postgres()).url}", flush=True)
    print(f"export {MQTT}={stack.enter_context(provide_mosquitto()).url}", flush=True)
    print(f"export {KAFKA}={stack.enter_context(provide_kafka()).bootstrap}", flush=True)
    print("all are running; Ctrl-C (or `make services-stop`) ends them", file=sys.stderr)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
