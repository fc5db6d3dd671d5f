"""The statements to add to the policy of a key that exists, as a document of their own."""

from keystow_service.keys.key_policy.statements import Grant, policy, provider_statements, written


def render(grant: Grant) -> str:
    """JSON."""
    return written(policy(*provider_statements(grant))) + "\n"
