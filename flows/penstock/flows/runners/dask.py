"""Bodies run on a Dask cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.flows.errors import RunnerError
from penstock.flows.runners.threads import check_workers

if TYPE_CHECKING:
    from penstock.flows.step import Step


@dataclass(frozen=True, slots=True)
class DaskRunner:
    """On the scheduler at `address`; without one on a LocalCluster of its own, with `cluster` as its arguments.

    max_workers: bodies at once; by default as many as the cluster has threads when the first task is submitted.
    Needs the extra `dask`.
    """

    address: str | None = None
    cluster: Mapping[str, Any] = field(default_factory=dict)
    max_workers: int | None = None

    def __post_init__(self) -> None:
        check_workers(self.max_workers)

    def open(self) -> DaskCrew:
        return DaskCrew(self)


class DaskCrew:
    """A client of the cluster."""

    def __init__(self, runner: DaskRunner) -> None:
        try:
            import distributed

            import penstock.flows.runners.parcels as parcels
        except ImportError:
            raise RunnerError('DaskRunner needs dask.distributed: install the extra, "penstock[dask]"') from None
        self._parcels = parcels
        self._cluster: Any = None
        try:
            if runner.address is None:
                self._cluster = distributed.LocalCluster(dashboard_address=None, **runner.cluster)
            self._client = distributed.Client(self._cluster or runner.address, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RunnerError(f"no Dask scheduler answers at {runner.address}: {error}") from error
        self.threads = runner.max_workers or max(1, sum(self._client.nthreads().values()))

    def run(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        parcel = self._parcels.make_parcel(step, args, kwargs)
        future = self._client.submit(self._parcels.open_parcel, parcel, key=None, pure=False)
        try:
            return self._parcels.read_answer(future.result())
        finally:
            future.release()

    def close(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
