"""`event` with `count` and `within`: the sliding window."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from penstock.events.instants import SECOND
from penstock.triggers import Pattern, count
from penstock.triggers.count import EMPTY, EventTrigger, Window, step
from penstock.triggers.evidence import Decided, Evidence

ANY = Pattern({"type": ["unit.e"]})
THREE_IN_TEN = EventTrigger(ANY, count=3, within=10 * SECOND)


def event(name: str, at: float, body: bytes = b"{}") -> Evidence:
    return Evidence(int(at * SECOND), "/test", name, body)


def play(trigger: EventTrigger, *events: tuple[Evidence, float]) -> tuple[Window, list[Decided]]:
    window, decided = EMPTY, []
    for match, arrival in events:
        window, found = step(trigger, window, match, arrival=int(arrival * SECOND))
        decided += [found] if found else []
    return window, decided


def in_order(trigger: EventTrigger, *times: float) -> list[list[str]]:
    _, decided = play(trigger, *((event(f"e{n}", at), at) for n, at in enumerate(times)))
    return [[each.id for each in found.evidence] for found in decided]


def test_the_third_match_within_the_window_fires_with_all_three() -> None:
    assert in_order(THREE_IN_TEN, 0, 4, 9) == [["e0", "e1", "e2"]]


def test_exactly_within_is_inside_and_a_microsecond_more_is_outside() -> None:
    assert in_order(THREE_IN_TEN, 0, 4, 10) == [["e0", "e1", "e2"]]
    assert in_order(THREE_IN_TEN, 0, 4, 10.000001) == []


def test_a_burst_across_any_border_of_fixed_windows_fires() -> None:
    assert in_order(THREE_IN_TEN, 9, 10, 11) == [["e0", "e1", "e2"]]


def test_a_firing_empties_the_window() -> None:
    assert in_order(THREE_IN_TEN, 0, 1, 2, 3, 4) == [["e0", "e1", "e2"]]
    assert in_order(THREE_IN_TEN, 0, 1, 2, 3, 4, 5) == [["e0", "e1", "e2"], ["e3", "e4", "e5"]]


def test_an_event_delivered_late_into_the_middle_completes_the_window() -> None:
    _, decided = play(THREE_IN_TEN, (event("e1", 10), 10), (event("e2", 12), 12), (event("e3", 5), 13))
    assert [(found.at, [each.id for each in found.evidence]) for found in decided] == [
        (13 * SECOND, ["e3", "e1", "e2"])
    ]


def test_an_event_stamped_ahead_neither_expires_nor_completes_the_others() -> None:
    ahead = (event("future", 100_000), 1)
    _, decided = play(THREE_IN_TEN, (event("e0", 0), 0), ahead, (event("e1", 2), 2), (event("e2", 3), 3))
    assert [[each.id for each in found.evidence] for found in decided] == [["e0", "e1", "e2"]]


def test_an_event_beyond_lateness_takes_part_in_nothing_and_exactly_lateness_is_in_time() -> None:
    two = EventTrigger(ANY, count=2, within=60 * SECOND, lateness=30 * SECOND)
    _, in_time = play(two, (event("e0", 0), 0), (event("e1", 5), 35))
    _, too_late = play(two, (event("e0", 0), 0), (event("e1", 5), 35.001))
    assert (len(in_time), len(too_late)) == (1, 0)


def test_late_accept_still_fills_windows_that_hold_the_time_of_a_buffered_event() -> None:
    patient = EventTrigger(ANY, count=2, within=60 * SECOND, accept_late=True)
    _, decided = play(patient, (event("e0", 0), 3_600), (event("e1", 5), 3_601))
    assert len(decided) == 1


def test_one_event_alone_fires_whatever_its_age() -> None:
    _, decided = play(EventTrigger(ANY), (event("old", 0), 90_000))
    assert [found.at for found in decided] == [90_000 * SECOND]


def test_two_events_of_one_instant_are_two() -> None:
    assert in_order(EventTrigger(ANY, count=2, within=SECOND), 1, 1) == [["e0", "e1"]]


def test_a_window_keeps_the_newest_bodies_within_its_budget_and_every_identity() -> None:
    large = EventTrigger(ANY, count=1_000, within=3_600 * SECOND)
    window, _ = play(large, *((event(f"e{n}", n, b"x" * 1_000), n) for n in range(100)))
    assert len(window.matches) == 100
    assert len(count.encode(window)) <= 64 * 1024
    assert window.matches[-1].body
    assert not window.matches[0].body


times = st.lists(st.integers(0, 60), min_size=1, max_size=25)


@given(times)
def test_redelivering_every_event_changes_nothing(seconds: list[int]) -> None:
    """Within one window; across firings the engine remembers identities (tests/integration/engine)."""
    unfired = EventTrigger(ANY, count=1_000, within=100 * SECOND, lateness=1_000 * SECOND)
    once = [(event(f"e{n}", at), 60.0) for n, at in enumerate(seconds)]
    twice = [each for each in once for _ in range(2)]
    assert play(unfired, *once) == play(unfired, *twice)


@given(times, st.integers(2, 4), st.integers(1, 20))
def test_it_fires_exactly_when_some_choice_of_matches_fits_into_the_window(
    seconds: list[int], n: int, within: int
) -> None:
    """Against a naive reading: keep all matches since the last firing, try every choice that holds the new one."""
    trigger = EventTrigger(ANY, count=n, within=within * SECOND, lateness=1_000 * SECOND)
    window, kept = EMPTY, list[Evidence]()
    for number, at in enumerate(seconds):
        match = event(f"e{number}", at)
        kept.append(match)
        window, found = step(trigger, window, match, arrival=60 * SECOND)
        spans = [
            max(each.time for each in choice) - min(each.time for each in choice)
            for choice in combinations(kept, n)
            if match in choice
        ]
        expected = any(span <= within * SECOND for span in spans)
        assert (found is not None) == expected
        if found:
            assert match in found.evidence
            assert len(found.evidence) == n
            kept = []


@given(times)
def test_storing_the_window_after_every_step_changes_nothing(seconds: list[int]) -> None:
    straight, stored = EMPTY, EMPTY
    for number, at in enumerate(seconds):
        match = event(f"e{number}", at)
        straight, first = step(THREE_IN_TEN, straight, match, arrival=at * SECOND)
        stored, second = step(THREE_IN_TEN, count.decode(count.encode(stored)), match, arrival=at * SECOND)
        assert (straight, first) == (stored, second)
        assert count.is_sorted(straight)


@given(times)
def test_what_has_expired_can_be_dropped_without_a_difference(seconds: list[int]) -> None:
    """The engine deletes a window once the clock has passed `expires_at`."""
    trigger = EventTrigger(ANY, count=2, within=5 * SECOND, lateness=2 * SECOND)
    kept, dropped = EMPTY, EMPTY
    for number, at in enumerate(sorted(seconds)):
        match = event(f"e{number}", at)
        ends = count.expires_at(trigger, dropped)
        if ends is not None and ends < at * SECOND:
            dropped = EMPTY
        kept, first = step(trigger, kept, match, arrival=at * SECOND)
        dropped, second = step(trigger, dropped, match, arrival=at * SECOND)
        assert (first is None) == (second is None)
