"""A Terraform configuration that makes the key, its alias and its policy.

https://registry.terraform.io/providers/hashicorp/aws/latest/docs/resources/kms_key
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from keystow_service.keys.key_policy.statements import Grant, new_key_policy


@dataclass(frozen=True, slots=True)
class _Template:
    """A text in which ${…} is for Terraform to fill in."""

    text: str


def render(grant: Grant) -> str:
    """HCL. Names end in the tenant's, so that several stand in one module."""
    name = "keystow_" + re.sub("[^a-z0-9]", "_", grant.tenant_id)
    owner = _Template(f"arn:aws:iam::${{data.aws_caller_identity.{name}.account_id}}:root")
    region = grant.place.region
    return f"""\
data "aws_caller_identity" "{name}" {{}}

data "aws_region" "{name}" {{}}

resource "aws_kms_key" "{name}" {{
  description              = {_quoted(grant.description)}
  customer_master_key_spec = "SYMMETRIC_DEFAULT"
  key_usage                = "ENCRYPT_DECRYPT"
  multi_region             = false
  enable_key_rotation      = true
  deletion_window_in_days  = 30

  policy = jsonencode({_expression(new_key_policy(grant, owner), "  ")})

  lifecycle {{
    prevent_destroy = true # without the key the backups cannot be read

    precondition {{
      condition     = data.aws_region.{name}.id == {_quoted(region)}
      error_message = {_quoted(f"The key must be in {region}, as the backups are.")}
    }}
  }}
}}

resource "aws_kms_alias" "{name}" {{
  name          = {_quoted(grant.alias)}
  target_key_id = aws_kms_key.{name}.key_id
}}

output "{name}_key_arn" {{
  description = {_quoted(f"To register {grant.tenant_id} with")}
  value       = aws_kms_key.{name}.arn
}}
"""


def _expression(value: object, indent: str) -> str:
    deeper = indent + "  "
    match value:
        case _Template():
            return f'"{value.text}"'
        case Mapping():
            fields = {_quoted(name): _expression(each, deeper) for name, each in value.items()}
            return f"{{\n{''.join(_aligned(fields, deeper))}{indent}}}"
        case list():
            items = (f"{deeper}{_expression(each, deeper)},\n" for each in value)
            return f"[\n{''.join(items)}{indent}]"
    return _quoted(str(value))


def _aligned(fields: Mapping[str, str], indent: str) -> Iterator[str]:
    """As terraform fmt does it: neighbours of one line each."""
    for several_lines, run in groupby(fields.items(), lambda field: "\n" in field[1]):
        neighbours = list(run)
        width = 0 if several_lines else max(len(name) for name, _ in neighbours)
        yield from (f"{indent}{name.ljust(width)} = {value}\n" for name, value in neighbours)


def _quoted(text: str) -> str:
    """A literal (https://developer.hashicorp.com/terraform/language/expressions/strings#escape-sequences)."""
    return json.dumps(text).replace("${", "$${").replace("%{", "%%{")
