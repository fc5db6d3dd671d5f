"""keystow tenant check-key and key-policy: what comes before a registration."""

from typing import Annotated

import typer

from keystow_client.cli.exits import ExitCode
from keystow_client.cli.output import describe, printable, table
from keystow_client.cli.progress import waiting
from keystow_client.cli.session import Session, command
from keystow_client.models import KeyPolicyFormat

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", show_default=False)]
DataCenterOption = Annotated[str, typer.Option("--data-center", metavar="NAME", help="See keystow data-centers.")]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="Wait so many seconds, up to 300, for a fresh key policy to take effect.",
    ),
]


@command
async def check_key(
    session: Session,
    tenant: TenantArgument,
    *,
    data_center: DataCenterOption,
    key_arn: Annotated[str, typer.Option("--key-arn", metavar="ARN", help="The customer's KMS key.")],
    wait: WaitOption = 0.0,
) -> ExitCode:
    """Try a customer's key as register would, and change nothing. Exit code 6 if it cannot be used."""
    with waiting(session.output, "trying the key", wait):
        report = await session.client.check_key(tenant, data_center=data_center, kms_key_arn=key_arn, wait=wait)
    rows = [(each.outcome, each.name, printable(each.detail)) for each in report.checks]
    verdict = "The key can be used." if report.usable else "The key cannot be used."
    session.output.block("\n".join([*table(rows), verdict]), describe(report))
    return ExitCode.OK if report.usable else ExitCode.KEY_UNAVAILABLE


@command
async def key_policy(
    session: Session,
    tenant: TenantArgument,
    *,
    data_center: DataCenterOption,
    policy_format: Annotated[KeyPolicyFormat, typer.Option("--format", help="For which tool.")],
) -> None:
    """Print what a customer applies in its AWS account so that the service may use its key for this tenant.

    The tenant need not be registered yet.
    """
    document = await session.client.get_key_policy(tenant, data_center=data_center, policy_format=policy_format)
    session.output.document(
        document, {"tenant_id": tenant, "data_center": data_center, "format": policy_format, "document": document}
    )
