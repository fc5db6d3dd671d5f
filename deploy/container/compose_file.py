"""Reads the compose files without Docker Compose: what they come to, file over file, with their variables filled in.

It knows what our files use, and stops at anything else rather than skip it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

# ${NAME:?what to do} and ${NAME:-default}; any other "$" is not known.
_VARIABLE = re.compile(r"\$\{(?P<name>\w+):(?:\?[^}]+|-(?P<default>[^}]*))\}")


class _Override(list[Any]):
    """A list that takes the place of the one before, instead of joining it."""


class _Loader(yaml.SafeLoader):
    """With Docker Compose's own tag."""


def _override(loader: _Loader, node: yaml.SequenceNode) -> _Override:
    return _Override(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("!override", _override)


def read(files: Sequence[Path], variables: Mapping[str, str]) -> dict[str, Any]:
    """The deployment. Raises KeyError for a variable without a value, ValueError for what it does not know."""
    whole: dict[str, Any] = {}
    for file in files:
        # Tags of our own in a safe loader make no other objects than lists.
        said = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
        whole = _over(whole, _filled(said, variables))
    return whole


def required(file: Path) -> set[str]:
    """The variables that have no default."""
    found = _VARIABLE.finditer(file.read_text(encoding="utf-8"))
    return {each["name"] for each in found if each["default"] is None}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    match value:
        case str():
            if "$" in _VARIABLE.sub("", value):
                raise ValueError(f"not known: {value}")
            return _VARIABLE.sub(lambda found: variables.get(found["name"]) or _default(found), value)
        case _Override():
            return _Override(_filled(each, variables) for each in value)
        case list():
            return [_filled(each, variables) for each in value]
        case dict():
            return {name: _filled(each, variables) for name, each in value.items()}
        case _:
            return value


def _default(found: re.Match[str]) -> str:
    if found["default"] is None:
        raise KeyError(found["name"])
    return found["default"]


def _over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {name: _over(below.get(name), each) for name, each in above.items()}
    if isinstance(below, list) and isinstance(above, list) and not isinstance(above, _Override):
        return [*below, *above]
    return above
