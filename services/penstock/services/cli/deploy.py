"""`penstock deploy`: the deployments of `penstock.yaml`, made or changed as a whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from penstock.automations.deployments import DeploymentModel

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="only these; none: all of the file")
    ] = None,
    file: Annotated[Path, typer.Option(metavar="FILE", help="the project's file")] = Path("penstock.yaml"),
    prune: Annotated[bool, typer.Option("--prune", help="remove those from files that the file does not name")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Make the deployments of a project, all of them or none; those that are as they should be are left alone.

    The flows are imported here, so that parameters are checked with their own types, and told to the API with the git
    commit of their folder.
    """
    from penstock.services.cli.client import CommandError, connect
    from penstock.services.cli.output import print_json
    from penstock.services.offers import offers_of, to_wire
    from penstock.services.project import read_file, settings_of

    if prune and names:
        raise CommandError("--prune compares the whole file with what there is; leave the names out")
    project = read_file(file)
    chosen = _chosen(project.deployments, names or [], file)
    if not chosen and not prune:
        raise CommandError(
            f"{file} names no deployments; write them under `deployments:`, or use --prune to remove all"
        )
    if file.parent != Path():
        os.chdir(file.parent)  # the file names its flows from where it stands
    settings = settings_of(project)
    offers = offers_of(chosen, settings.flows)
    body = {"deployments": [to_wire(each) for each in offers], "prune": prune}
    changes = connect(settings).post("deployments", body)["changes"]
    if as_json:
        print_json(changes)
        return
    for each in changes:
        parts = f": {', '.join(each['parts'])}" if each["parts"] else ""
        print(f"{each['what']:9}  {each['name']}{parts}")


def _chosen(found: Sequence[DeploymentModel], names: Sequence[str], file: Path) -> list[DeploymentModel]:
    from penstock.automations.problems import did_you_mean
    from penstock.services.cli.client import CommandError

    known = [each.name for each in found]
    for name in names:
        if name not in known:
            raise CommandError(f"{file} has no deployment {name!r} ({did_you_mean(name, known) or 'it names none'})")
    return [each for each in found if not names or each.name in names]
