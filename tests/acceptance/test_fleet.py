"""Each service is a process of its own: it starts, says so, and ends cleanly."""

from tests.support.fleet import Fleet

ALL = ("api", "engine", "scheduler", "sensors", "notifier", "worker")


async def test_every_service_starts_as_a_process_and_ends_with_sigterm(fleet: Fleet) -> None:
    processes = await fleet.start_all(*ALL)
    codes = {name: process.terminate() for name, process in processes.items()}
    assert codes == dict.fromkeys(ALL, 0), {name: processes[name].text()[-2000:] for name in ALL if codes[name]}
