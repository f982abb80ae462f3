"""Bodies run on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.flows.errors import RunnerError
from penstock.flows.runners.threads import check_workers

if TYPE_CHECKING:
    from penstock.flows.step import Step


@dataclass(frozen=True, slots=True)
class RayRunner:
    """On the cluster at `address`; without one on one of its own in this machine, with `init` as its arguments.

    max_workers: bodies at once; by default as many as the cluster has processors.  Needs the extra `ray`.
    """

    address: str | None = None
    init: Mapping[str, Any] = field(default_factory=dict)
    max_workers: int | None = None

    def __post_init__(self) -> None:
        check_workers(self.max_workers)

    def open(self) -> RayCrew:
        return RayCrew(self)


class RayCrew:
    """A connection to the cluster; the process has one at most, so that what was open before stays open."""

    def __init__(self, runner: RayRunner) -> None:
        try:
            import ray

            import penstock.flows.runners.parcels as parcels
        except ImportError:
            raise RunnerError('RayRunner needs ray: install the extra, "penstock[ray]"') from None
        self._ray, self._parcels = ray, parcels
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(address=runner.address, include_dashboard=False, log_to_driver=False, **runner.init)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RunnerError(f"no Ray cluster at {runner.address}: {error}") from error
        self._remote = ray.remote(parcels.open_parcel)
        self.threads = runner.max_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        parcel = self._parcels.make_parcel(step, args, kwargs)
        return self._parcels.read_answer(self._ray.get(self._remote.remote(parcel)))

    def close(self) -> None:
        if self._ours:
            self._ray.shutdown()
