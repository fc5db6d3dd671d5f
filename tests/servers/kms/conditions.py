"""The conditions of policy statements.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html and, for keys that
have several values, …/reference_policies_condition-single-vs-multi-valued-context-keys.html.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

_CONTEXT = "kms:encryptioncontext:"  # and the name of a pair
_SEVERAL = frozenset({"kms:encryptioncontextkeys"})
_SINGLE = frozenset({"kms:calleraccount", "kms:keyspec", "kms:keyusage", "kms:keyorigin", "aws:principalarn"})

_MATCHES: Mapping[str, Callable[[str, str], bool]] = MappingProxyType(
    {
        "StringEquals": lambda value, pattern: value == pattern,
        "StringEqualsIgnoreCase": lambda value, pattern: value.lower() == pattern.lower(),
        "StringLike": fnmatchcase,
        "ArnEquals": fnmatchcase,
        "ArnLike": fnmatchcase,
    }
)
_NEGATED = MappingProxyType(
    {
        "StringNotEquals": "StringEquals",
        "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
        "StringNotLike": "StringLike",
        "ArnNotEquals": "ArnEquals",
        "ArnNotLike": "ArnLike",
    }
)


class UnknownPolicyError(ValueError):
    """A policy is malformed, or uses what is not known here."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One key under one operator. ``quantifier`` is ForAllValues, ForAnyValue or empty."""

    key: str  # lower case: names of condition keys, encryption context included, are compared without case
    operator: str  # without negation
    negated: bool
    quantifier: str
    if_exists: bool
    patterns: tuple[str, ...]

    @classmethod
    def all_of(cls, content: Mapping[str, Mapping[str, Any]]) -> Iterator["Condition"]:
        """Those of a statement. Raises UnknownPolicyError."""
        for operator, keys in content.items():
            for key, patterns in keys.items():
                yield cls._read(operator, key.lower(), tuple(patterns if isinstance(patterns, list) else [patterns]))

    @classmethod
    def _read(cls, operator: str, key: str, patterns: tuple[Any, ...]) -> "Condition":
        quantifier, _, name = operator.rpartition(":")
        if_exists = name.endswith("IfExists")
        name = name.removesuffix("IfExists")
        negated = name in _NEGATED
        name = _NEGATED.get(name, name)
        if (name != "Null" and name not in _MATCHES) or quantifier not in ("", "ForAllValues", "ForAnyValue"):
            raise UnknownPolicyError(f"the operator {operator} is not known")
        if not key.startswith(_CONTEXT) and key not in _SEVERAL | _SINGLE:
            raise UnknownPolicyError(f"the condition key {key} is not known")
        if key in _SEVERAL and not quantifier and name != "Null":
            raise UnknownPolicyError(f"{key} has several values: it needs ForAllValues or ForAnyValue")
        if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise UnknownPolicyError(f"the values of {key} must be texts")
        if any("${" in pattern for pattern in patterns):
            raise UnknownPolicyError("policy variables are not known")
        return cls(key, name, negated, quantifier, if_exists, patterns)

    def holds(self, values: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether it does for a request with these values of condition keys."""
        found = values.get(self.key, ())
        if self.operator == "Null":
            return self.patterns == ("false" if found else "true",)
        if self.quantifier == "ForAnyValue":
            return any(map(self._matches, found))
        if self.quantifier == "ForAllValues":
            return all(map(self._matches, found))
        return all(map(self._matches, found)) if found else self.if_exists or self.negated

    def _matches(self, value: str) -> bool:
        return any(_MATCHES[self.operator](value, pattern) for pattern in self.patterns) != self.negated
