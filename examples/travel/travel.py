"""A trip that is booked as a whole or not at all: `python examples/travel/travel.py`, with no server.

Offers are fetched beside each other and shared by all runs of the same day; what was booked is given back, the last
first, when the card is refused. On a worker the same flow survives crashes between any two bookings.
"""

from __future__ import annotations

from datetime import timedelta

from penstock.flows import INPUTS, Moment, exponential, flow, task, unmapped, uuid4


@task(
    run_name="offer {kind} to {town}",
    retries=3,
    retry_delay=exponential(0.5),
    cache=INPUTS,
    cache_for=timedelta(days=1),
)
def find_offer(kind: str, town: str) -> dict[str, str]:
    """Ask a provider; equal questions of one day are asked once."""
    return {"kind": kind, "offer": f"{kind} to {town}"}


def give_back(moment: Moment) -> None:
    """Undo one booking."""
    print("given back:", moment.result)


@task(on_rollback=give_back)
def book(offer: dict[str, str], key: str) -> str:
    """Book under a key, so that asking twice books once."""
    print("booked:", offer["offer"])
    return f"{offer['kind']} {len(key)}"


@task
def pay(amount: float, limit: float) -> None:
    """Charge the card."""
    if amount > limit:
        raise ValueError(f"the card takes {limit:g}, not {amount:g}")


@flow(run_name="trip to {town}")
def travel(town: str, amount: float = 300.0, limit: float = 1_000.0) -> list[str]:
    """Fetch offers, book them in order, pay."""
    offers = find_offer.map(["train", "hotel"], unmapped(town)).result()
    booked = [book(offer, str(uuid4())) for offer in offers]
    pay(amount, limit)
    return booked


if __name__ == "__main__":
    print(travel("Linz"))
    try:
        travel("Graz", limit=100)
    except ValueError as error:
        print("no trip:", error)
