"""The quickstart's flows: ordinary Python, each with tasks whose results are kept."""

from penstock.flows import flow, get_logger, task


@task(retries=2, retry_delay=0.5)
def book_parcel(order: str) -> str:
    """Ask the carrier for a parcel number."""
    get_logger().info("booking a parcel for order %s", order)
    return f"parcel-{order}"


@task
def print_label(parcel: str, amount: float) -> str:
    """Make the label that goes onto it."""
    print(f"label for {parcel}, insured for {amount:.2f} EUR")
    return f"label-{parcel}"


@flow(limits=["erp"])
def ship_order(order: str, amount: float) -> dict[str, str]:
    """Two tasks, one after the other."""
    parcel = book_parcel(order)
    return {"parcel": parcel, "label": print_label(parcel, amount)}


@task
def read(percent: float) -> str:
    """Put the reading into words."""
    return "busy" if percent > 80 else "calm"


@task
async def remember(host: str, mood: str) -> str:
    """Tasks may be async, beside sync ones."""
    print(f"{host} is {mood}")
    return mood


@flow
async def look_at_machine(host: str, percent: float) -> str:
    """An async flow with a sync and an async task."""
    return await remember(host, read(percent))
