"""keystow tenant, data-centers and server-info."""

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from keystow_client.cli.output import describe, fields, table
from keystow_client.cli.progress import waiting
from keystow_client.cli.session import Session, command
from keystow_client.cli.tenant_keys import DataCenterOption, TenantArgument, WaitOption, check_key, key_policy
from keystow_client.models import CheckOutcome, KeyManagement

tenant_app = typer.Typer(no_args_is_help=True, help="Register tenants and look them up.")
tenant_app.command("key-policy")(key_policy)
tenant_app.command("check-key")(check_key)


@tenant_app.command("register")
@command
async def register(
    session: Session,
    tenant: TenantArgument,
    *,
    data_center: DataCenterOption,
    provider_managed: Annotated[
        bool, typer.Option("--provider-managed", help="Encrypt under the provider's own key.")
    ] = False,
    key_arn: Annotated[
        str, typer.Option("--key-arn", metavar="ARN", help="Encrypt under this KMS key of the customer's.")
    ] = "",
    display_name: Annotated[str, typer.Option("--display-name", metavar="NAME")] = "",
    wait: WaitOption = 0.0,
    confirm_permanent: Annotated[
        bool, typer.Option("--confirm-permanent", help="I know that this can never be changed.")
    ] = False,
) -> None:
    """Bind a tenant to a data centre and a key, for good.

    One of --provider-managed and --key-arn is needed. On a terminal asks before it binds; elsewhere --confirm-permanent
    must be given.
    """
    if provider_managed == bool(key_arn):
        raise typer.BadParameter("give either --provider-managed or --key-arn ARN")
    key = key_arn or "the provider's key"
    if not confirm_permanent:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise typer.BadParameter("the choice can never be changed: repeat the command with --confirm-permanent")
        question = f"{tenant} will be bound to {data_center} and {key}. This can never be changed. Go on?"
        typer.confirm(question, abort=True, err=True)
    with waiting(session.output, "registering", wait):
        registration = await session.client.register_tenant(
            tenant,
            data_center=data_center,
            key_management=KeyManagement.SELF if key_arn else KeyManagement.PROVIDER,
            confirm_permanent=True,
            kms_key_arn=key_arn,
            display_name=display_name,
            wait=wait,
        )
    described = describe(registration.tenant)
    checks = [describe(check) for check in registration.checks]
    session.output.block(fields(described), {**described, "checks": checks})
    for check in registration.checks:
        if check.outcome is not CheckOutcome.PASSED:
            session.output.note(f"{check.name}: {check.outcome}: {check.detail}")


@tenant_app.command("show")
@command
async def show(session: Session, tenant: TenantArgument) -> None:
    """Describe a tenant: its choices, and how its key does."""
    described = describe(await session.client.get_tenant(tenant))
    session.output.block(fields(described), described)


@tenant_app.command("list")
@command
async def list_(session: Session) -> None:
    """List all tenants."""
    async with aclosing(session.client.list_tenants()) as found:
        tenants = [tenant async for tenant in found]
    rows = [
        (each.tenant_id, each.data_center, each.key_management, each.kms_key_arn, each.display_name) for each in tenants
    ]
    for tenant, line in zip(tenants, table(rows), strict=True):
        session.output.line(line, describe(tenant))


@command
async def data_centers(session: Session) -> None:
    """List where tenants can be placed, and the region that their keys must be in."""
    found = await session.client.list_data_centers()
    rows = [(each.name, each.region, each.display_name) for each in found]
    for data_center, line in zip(found, table(rows), strict=True):
        session.output.line(line, describe(data_center))


@command
async def server_info(session: Session) -> None:
    """Show the server's version and limits."""
    described = describe(await session.client.server_info())
    session.output.block(fields(described), described)
