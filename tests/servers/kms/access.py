"""May this principal do this with this key? The key's policy decides, and the IAM of the principal's account.

https://docs.aws.amazon.com/kms/latest/developerguide/policy-evaluation.html. Grants are not known here.
"""

from collections.abc import Mapping

from servers.kms.keys import Key
from servers.kms.policy import Policy, Question, Verdict
from servers.kms.principals import Principal
from servers.kms.refusal import Refusal

# The others work in the key's own account only, whatever its policy says.
_ACROSS_ACCOUNTS = frozenset({"DescribeKey", "GenerateDataKey", "Decrypt"})


def authorize(principal: Principal, operation: str, key: Key, policy: Policy, context: Mapping[str, str]) -> None:
    """Raises Refusal, in AWS's words."""
    question = _question(principal, operation, key, context)
    by_key = policy.verdict(question)
    by_iam = max((each.verdict(question) for each in principal.iam), default=Verdict.NOTHING)
    who = f"User: {principal.arn} is not authorized to perform: {question.action}"
    if principal.account != key.account:
        if operation not in _ACROSS_ACCOUNTS or by_key in (Verdict.NOTHING, Verdict.DENIES):
            raise hidden(principal, operation)
        if by_iam is Verdict.ALLOWS:
            return
    elif by_key is Verdict.DENIES:
        raise _denied(f"{who} on resource: {key.arn} with an explicit deny in a resource-based policy")
    elif by_key is Verdict.NOTHING:
        raise _denied(
            f"{who} on resource: {key.arn} because no resource-based policy allows the {question.action} action"
        )
    elif by_iam is Verdict.ALLOWS or (by_iam is Verdict.NOTHING and by_key is Verdict.ALLOWS):
        return
    if by_iam is Verdict.DENIES:
        raise _denied(f"{who} on resource: {key.arn} with an explicit deny in an identity-based policy")
    raise _denied(f"{who} on resource: {key.arn} because no identity-based policy allows the {question.action} action")


def hidden(principal: Principal, operation: str) -> Refusal:
    """How AWS denies access to another account's key: so that nobody learns whether it exists."""
    return _denied(
        f"User: {principal.arn} is not authorized to perform: kms:{operation} on this resource because the resource "
        "does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly "
        "denies access"
    )


def _denied(message: str) -> Refusal:
    return Refusal("AccessDeniedException", message)


def _question(principal: Principal, operation: str, key: Key, context: Mapping[str, str]) -> Question:
    names = frozenset(name for name in (principal.arn, principal.role) if name is not None)
    values: dict[str, tuple[str, ...]] = {
        "kms:calleraccount": (principal.account,),
        "kms:keyspec": (key.kind.spec,),
        "kms:keyusage": (key.kind.usage,),
        "kms:keyorigin": (key.kind.origin,),
        "aws:principalarn": (principal.role or principal.arn,),
        **{f"kms:encryptioncontext:{name.lower()}": (value,) for name, value in context.items()},
    }
    if context:
        values["kms:encryptioncontextkeys"] = tuple(context)
    return Question(principal.account, names, f"kms:{operation}", key.arn, values)
