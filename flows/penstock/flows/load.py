"""Finding the flows of a user's modules.

A module is named by a path (`flows/reroute.py`, relative to the working directory) or by its dotted name. A path is
known by the name of its file, as in `reroute:reroute`. What does not import is a problem; the rest is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.flows.errors import FlowDefinitionError, FlowLoadError
from penstock.flows.flow import Flow
from penstock.flows.tries import describe


@dataclass(frozen=True, slots=True)
class LoadedFlow:
    """A flow that can be run. module: as deployments name it (`module:flow`); schema: of its parameters."""

    flow: Flow[..., Any]
    module: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Library:
    """The flows found, by name, and what is wrong with the others."""

    flows: dict[str, LoadedFlow] = field(default_factory=dict)
    problems: list[FlowLoadError] = field(default_factory=list)


def load_flows(modules: Iterable[str]) -> Library:
    """Import the modules and collect their flows. Two flows of one name are a problem, and neither is taken."""
    library = Library()
    ambiguous: set[str] = set()
    for name in modules:
        try:
            _collect(name, _import(name), library, ambiguous)
        except FlowLoadError as problem:
            library.problems.append(problem)
    for name in ambiguous:
        del library.flows[name]
    return library


def _collect(name: str, module: ModuleType, library: Library, ambiguous: set[str]) -> None:
    found = [value for value in vars(module).values() if isinstance(value, Flow)]
    if not found:
        library.problems.append(FlowLoadError(name, "it has no flow; decorate a function with @flow"))
    for flow in dict.fromkeys(found):
        known = library.flows.get(flow.name)
        if known is None:
            _add(name, flow, library)
        elif known.flow.place != flow.place:  # one flow may be seen in several modules
            ambiguous.add(flow.name)
            reason = f"two flows are called {flow.name!r}, at {known.flow.place} and {flow.place}; rename one (name=…)"
            library.problems.append(FlowLoadError(name, reason))


def _add(name: str, flow: Flow[..., Any], library: Library) -> None:
    module = Path(name).stem if _is_path(name) else flow.module
    try:
        library.flows[flow.name] = LoadedFlow(flow, module, flow.parameter_schema())
    except FlowDefinitionError as error:
        library.problems.append(FlowLoadError(name, f"{error} ({flow.place})"))


def _import(name: str) -> ModuleType:
    try:
        return _from_path(name) if _is_path(name) else _from_name(name)
    except FlowLoadError:
        raise
    except SystemExit as error:
        raise FlowLoadError(name, f"it called sys.exit({error.code!r}) while it was imported") from None
    except Exception as error:  # a user's module may raise anything; it is told, and the others are loaded
        raise FlowLoadError(name, f"{describe(error)}{_where(error, name)}") from error


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or os.sep in name


def _from_name(name: str) -> ModuleType:
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # it is there, and imports something that is not
        raise FlowLoadError(
            name, f"there is no such module (looked in {Path.cwd()} and the installed packages)"
        ) from None


def _from_path(name: str) -> ModuleType:
    path = Path(name).resolve()
    if not path.is_file():
        raise FlowLoadError(name, f"there is no such file ({path})")
    _make_importable(path.parent)
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    return _execute(_spec(path), name)


def _spec(path: Path) -> ModuleSpec | None:
    """A file named like a module that exists (`email.py`) gets another name inside, so that it hides nothing."""
    found = importlib.util.find_spec(path.stem) if path.stem not in sys.modules else None
    free = path.stem not in sys.modules and (found is None or found.origin == str(path))
    suffix = blake2b(os.fsencode(path), digest_size=4).hexdigest()
    return importlib.util.spec_from_file_location(path.stem if free else f"{path.stem}_{suffix}", path)


def _execute(spec: ModuleSpec | None, name: str) -> ModuleType:
    if spec is None or spec.loader is None:
        raise FlowLoadError(name, "it is no Python file; its name should end in .py")
    if spec.name in sys.modules:
        return sys.modules[spec.name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _make_importable(folder: Path) -> None:
    """Neighbours can be imported; at the end of the path, where they hide nothing that is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _where(error: Exception, name: str) -> str:
    """The deepest line outside of the import machinery."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    last = frames[-1] if frames else None
    if isinstance(error, SyntaxError) or last is None or last.filename == __file__:
        return ""
    return f" ({last.filename}:{last.lineno})"
