"""How a limit of a rule file becomes what Redis is asked."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.automations.durations import Rate
from penstock.automations.resources import Limit
from penstock.services.backoff import Backoff
from penstock.services.limits import LimitSpec

RATES = st.builds(Rate, st.integers(1, 10**6), st.integers(1, 10**12))


def test_a_limit_of_a_rule_file_keeps_its_rate_burst_and_outage_policy() -> None:
    limit = Limit.model_validate({"name": "erp", "rate": "10/1s", "burst": 10, "on_outage": "open"})
    assert LimitSpec.of(limit) == LimitSpec("erp", Rate(10, 1_000_000), 10, "open")


@given(RATES)
def test_permits_spaced_by_the_interval_never_exceed_the_rate(rate: Rate) -> None:
    interval = LimitSpec("x", rate).interval
    assert interval * rate.count >= rate.per
    assert (interval - 1) * rate.count < rate.per


def test_an_unlimited_rate_has_no_interval() -> None:
    assert LimitSpec("x", None).interval == 0


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_lies_between_half_and_the_whole_of_its_step_and_never_above_the_cap(
    failures: int, draw: float
) -> None:
    backoff = Backoff(attempts=5)
    whole = min(backoff.cap, backoff.base * 2 ** min(failures - 1, 20))
    assert whole / 2 <= backoff.pause(failures, draw) <= whole


def test_tries_are_exhausted_at_the_last_attempt() -> None:
    assert [Backoff(attempts=3).exhausted(failures) for failures in (1, 2, 3)] == [False, False, True]
