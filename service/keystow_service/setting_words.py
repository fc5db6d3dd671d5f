"""What is wrong with a setting, in words for whoever writes it: never a regular expression, never the value itself.

The value may be a secret that came into the wrong place.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import AfterValidator

_MAX_PORT = 65535
_ADDRESS = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}"

# By pydantic's types of errors (https://docs.pydantic.dev/latest/errors/validation_errors/), with their context.
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "extra_forbidden": "there is no such setting",
        "missing": "is missing",
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than_equal": "must be at most {le}",
        "too_short": "must have at least {min_length}",
        "string_too_long": "must be at most {max_length} characters long",
        "string_type": "must be text",
        "path_type": "must be the path of a file or folder",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "finite_number": "must be a finite number",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a smaller number",
        "int_from_float": "must be a whole number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "enum": "must be {expected}",
        "dict_type": "must be a table",
        "model_type": "must be a table of settings",
    }
)


def matching(pattern: str, words: str) -> AfterValidator:
    """Text that the whole pattern matches; ``words`` say what that is, after "must be"."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"must be {words}")
        return text

    return AfterValidator(check)


def _check_address(text: str) -> str:
    if re.fullmatch(_ADDRESS, text) is None:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    if int(text.rpartition(":")[2]) > _MAX_PORT:
        raise ValueError(f"must have a port of at most {_MAX_PORT}")
    return text


ADDRESS = AfterValidator(_check_address)


def problem(error: Any) -> str:
    """One error of pydantic's, after the setting's name; those of whole tables begin with names themselves."""
    name = ".".join(str(part) for part in error["loc"] if part != "[key]")
    words = _WORDS.get(error["type"])
    message = error["msg"].removeprefix("Value error, ") if words is None else words.format(**error.get("ctx", {}))
    return f"{name}: {message}" if name else message
