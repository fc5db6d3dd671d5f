"""Policy documents, evaluated as AWS does, for the part of their language that key policies of keystow's tenants use.

What this does not know, it refuses when the policy is read: a policy that a test applies is never half understood.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from servers.kms.conditions import Condition, UnknownPolicyError

Document: TypeAlias = Mapping[str, Any]

_ACCOUNT = re.compile(r"(?:arn:aws:iam::)?(\d{12})(?::root)?")
_POLICY_ELEMENTS = frozenset({"Version", "Id", "Statement"})
_STATEMENT_ELEMENTS = frozenset({"Sid", "Effect", "Principal", "Action", "Resource", "Condition"})


class Verdict(IntEnum):
    """What a policy says of a request. Of several statements the highest counts."""

    NOTHING = 0
    ALLOWS_ACCOUNT = 1  # it leaves the decision to the IAM policies of the principal's account
    ALLOWS = 2
    DENIES = 3


@dataclass(frozen=True, slots=True)
class Question:
    """May this principal do this with this key? ``values`` are those of condition keys, by lower-case name."""

    account: str
    names: frozenset[str]  # the ARNs that mean the principal
    action: str  # such as kms:Decrypt
    resource: str
    values: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Statement:
    denies: bool
    principals: tuple[str, ...]  # empty in a policy of an identity
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[Condition, ...]

    def verdict(self, question: Question) -> Verdict:
        applies = (
            any(fnmatchcase(question.action.lower(), pattern.lower()) for pattern in self.actions)
            and any(fnmatchcase(question.resource, pattern) for pattern in self.resources)
            and all(condition.holds(question.values) for condition in self.conditions)
        )
        named = max((_named(principal, question) for principal in self.principals), default=Verdict.ALLOWS)
        if not applies or named is Verdict.NOTHING:
            return Verdict.NOTHING
        return Verdict.DENIES if self.denies else named


def _named(principal: str, question: Question) -> Verdict:
    if principal == "*" or principal in question.names:
        return Verdict.ALLOWS
    account = _ACCOUNT.fullmatch(principal)
    return Verdict.ALLOWS_ACCOUNT if account and account[1] == question.account else Verdict.NOTHING


@dataclass(frozen=True, slots=True)
class Policy:
    """A document that was understood in full."""

    text: str
    _statements: tuple[_Statement, ...]

    @classmethod
    def of_key(cls, document: Document | str) -> "Policy":
        """Raises UnknownPolicyError."""
        return cls._read(document, of_identity=False)

    @classmethod
    def of_identity(cls, document: Document | str) -> "Policy":
        """Of a user or role. Raises UnknownPolicyError."""
        return cls._read(document, of_identity=True)

    @classmethod
    def _read(cls, document: Document | str, *, of_identity: bool) -> "Policy":
        text = document if isinstance(document, str) else json.dumps(document)
        try:
            content = json.loads(text)
            _only(content, _POLICY_ELEMENTS)
            if content.get("Version") != "2012-10-17":
                raise UnknownPolicyError("its Version must be 2012-10-17")
            statements = content["Statement"]
            return cls(text, tuple(_statement(each, of_identity=of_identity) for each in _listed(statements)))
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UnknownPolicyError(f"it is malformed: {error!r}") from None

    def verdict(self, question: Question) -> Verdict:
        """Of all statements together."""
        return max((statement.verdict(question) for statement in self._statements), default=Verdict.NOTHING)


def _statement(content: Mapping[str, Any], *, of_identity: bool) -> _Statement:
    _only(content, _STATEMENT_ELEMENTS)
    if content["Effect"] not in ("Allow", "Deny"):
        raise UnknownPolicyError("Effect must be Allow or Deny")
    if of_identity == ("Principal" in content):
        raise UnknownPolicyError("a key policy's statement has a Principal, an identity's has none")
    return _Statement(
        content["Effect"] == "Deny",
        () if of_identity else _principals(content["Principal"]),
        _texts(content["Action"]),
        _texts(content["Resource"]),
        tuple(Condition.all_of(content.get("Condition", {}))),
    )


def _principals(content: Any) -> tuple[str, ...]:
    if content == "*":
        return ("*",)
    _only(content, frozenset({"AWS"}))
    return _texts(content["AWS"])


def _texts(content: Any) -> tuple[str, ...]:
    listed = _listed(content)
    if not listed or not all(isinstance(each, str) for each in listed):
        raise UnknownPolicyError(f"texts are expected, not {content!r}")
    return tuple(listed)


def _listed(content: Any) -> Sequence[Any]:
    return content if isinstance(content, list) else [content]


def _only(content: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := set(content) - known:
        raise UnknownPolicyError(f"unknown elements: {', '.join(sorted(unknown))}")
