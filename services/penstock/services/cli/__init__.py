"""The command line: `penstock …`. A room per noun, imported when it is called, so that the help is fast."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from penstock.services.cli.complaints import complaint

__all__ = ["app", "main"]

# name: (room, which holds `app: typer.Typer`; what the help says)
ROOMS: dict[str, tuple[str, str]] = {
    "up": ("penstock.services.cli.up", "Start everything in one process, with nothing prepared."),
    "service": ("penstock.services.cli.service", "Run one service (or a few) as a process of its own."),
    "worker": ("penstock.services.cli.worker", "Carry out the runs of a pool: start."),
    "db": ("penstock.services.cli.db", "The database's schema: upgrade, forget-topic."),
    "keys": ("penstock.services.cli.keys", "Who may use the API, in production: create, list, revoke."),
    "emit": ("penstock.services.cli.emit", "Send one event."),
    "events": ("penstock.services.cli.events", "Follow events as they come, and what came of one: tail, trace."),
    "rules": ("penstock.services.cli.rules", "Rule files: check, test, simulate, explain, apply, export-schema."),
    "deploy": ("penstock.services.cli.deploy", "Make the deployments of penstock.yaml."),
    "deployments": (
        "penstock.services.cli.deployments",
        "See and pause deployments: list, show, pause, unpause, delete.",
    ),
    "approvals": ("penstock.services.cli.approvals", "See and decide approvals: list, approve, reject."),
    "run": ("penstock.services.cli.run", "Run a flow on a worker, and watch it."),
    "runs": ("penstock.services.cli.runs", "See and steer runs: list, show, logs, cancel, retry, suspend, resume."),
    "dlq": ("penstock.services.cli.dlq", "See what could not be handled, and try it again: list, show, redrive."),
    "sign-in": ("penstock.services.cli.sign_in", "Print a one-time link that signs a browser in."),
}

app = typer.Typer(
    help="Event-driven automation: events in, rules decide, flows run, people approve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _register(name: str, room: str, help_: str) -> None:
    """A command that hands everything after its name to its room."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}

    @app.command(name, help=help_, add_help_option=False, context_settings=settings)
    def forward(context: typer.Context) -> None:
        found: typer.Typer = import_module(room).app
        found(args=context.args, prog_name=f"penstock {name}")


for _name, (_room, _help) in ROOMS.items():
    _register(_name, _room, _help)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 it did not work (one line says why), 2 wrong use."""
    try:
        app()
    except Exception as error:
        told = complaint(error)
        if told is None:  # a fault of ours: with its stack
            raise
        print(f"penstock: {told}", file=sys.stderr)
        sys.exit(1)
