"""keystow tenant key-policy, check-key and register, in the order of a customer's onboarding, with a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.command import Command
from keystow_client import Client, KeyPolicyFormat, KeyState
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from servers.keystow import KeystowServer, keystow_server

IN_US = ("--data-center", "us")
CHECKS = (
    "arn.syntax",
    "arn.region",
    "arn.unused",
    "key.describe",
    "grant.generate",
    "grant.decrypt",
    "policy.confined",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the server."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def onboarding(data_dir: Path) -> Iterator[KeystowServer]:
    """Keys of the US are in the local keyring; those of the EU in AWS KMS, which nothing here asks."""
    arn = "arn:aws:kms:eu-west-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    places = {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1", "provider_key_arn": arn}}
    settings = {
        "KEYSTOW_DATA_CENTERS": json.dumps(places),
        "KEYSTOW_DEPLOYMENT_ID": "tests",
        "KEYSTOW_KMS_PRINCIPAL_ARN": "arn:aws:iam::444455556666:role/keystow",
    }
    with keystow_server(data_dir, settings=settings) as running:
        yield running


@pytest.fixture
def keystow(onboarding: KeystowServer, tmp_path: Path) -> Command:
    """The command, for that server."""
    return Command(onboarding.address, tmp_path)


@pytest.fixture
def keyring(onboarding: KeystowServer, data_dir: Path) -> KeyringAdmin:
    """The customer's side of it."""
    folder = data_dir / "keyring"
    return KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())


def test_a_key_is_tried_and_registered(keystow: Command, keyring: KeyringAdmin) -> None:
    """Each check is a line, and the exit code tells; what check-key finds usable, register takes."""
    arn = keyring.create("us-east-1", tenants=["acme"]).arn.text
    tried = keystow.in_process("tenant", "check-key", "acme", *IN_US, "--key-arn", arn)
    assert (tried.code, tried.err) == (0, "")
    assert [line.split()[:2] for line in tried.lines[:-1]] == [["passed", name] for name in CHECKS]
    assert tried.lines[-1] == "The key can be used."
    [report] = keystow.in_process("tenant", "check-key", "acme", *IN_US, "--key-arn", arn, "--json").records
    assert (report["usable"], report["state"]) == (True, "enabled")
    assert [check["name"] for check in report["checks"]] == list(CHECKS)
    registered = keystow.in_process(
        "tenant", "register", "acme", *IN_US, "--key-arn", arn, "--confirm-permanent", "--json"
    )
    assert registered.records[0]["checks"] == report["checks"]
    shown = keystow.in_process("tenant", "show", "acme")
    assert shown.lines[-1].split() == ["key_health.revocation_bound", "60", "s"]


def test_a_key_that_fails(keystow: Command, keyring: KeyringAdmin) -> None:
    """check-key prints what it found, register each failed check on a line; both end with the code for keys."""
    arn = keyring.create("us-east-1", tenants=["umbrella"]).arn.text
    tried = keystow.in_process("tenant", "check-key", "globex", *IN_US, "--key-arn", arn)
    assert (tried.code, tried.err) == (6, "")
    assert [line.split()[0] for line in tried.lines] == ["passed"] * 4 + ["failed"] + ["skipped"] * 2 + ["The"]
    assert tried.lines[-1] == "The key cannot be used."
    assert "does not serve this tenant" in tried.lines[4]
    refused = keystow.in_process("tenant", "register", "globex", *IN_US, "--key-arn", arn, "--confirm-permanent")
    assert (refused.code, refused.lines) == (6, [])
    first, second = refused.err.splitlines()
    assert first.startswith("keystow: KMS_KEY_UNUSABLE: The key failed grant.generate")
    assert second.startswith("  grant.generate: The key does not serve this tenant")


def test_no_key_at_all(keystow: Command) -> None:
    """What is no ARN fails a check; a data centre that is none is a wrong request."""
    assert keystow.in_process("tenant", "check-key", "acme", *IN_US, "--key-arn", "alias/backup").code == 6
    assert keystow.in_process("tenant", "check-key", "acme", "--data-center", "moon", "--key-arn", "alias/a").code == 2


def test_waiting_is_shown(keystow: Command, keyring: KeyringAdmin) -> None:
    """On a terminal for how long the service has been trying; not in a pipe."""
    arn = keyring.create("us-east-1", tenants=["umbrella"]).arn.text
    code, shown = keystow.on_terminal("tenant", "check-key", "acme", *IN_US, "--key-arn", arn, "--wait", "1")
    assert code == 6
    assert "trying the key" in shown
    assert "0:00:0" in shown


@pytest.mark.parametrize("policy_format", KeyPolicyFormat)
def test_policies(keystow: Command, policy_format: KeyPolicyFormat) -> None:
    """Printed as the service rendered them, for a tenant that is not registered."""
    arguments = ("tenant", "key-policy", "newcomer", "--data-center", "eu", "--format", policy_format.value)
    shown = keystow.in_process(*arguments)
    assert (shown.code, shown.err) == (0, "")
    [record] = keystow.in_process(*arguments, "--json").records
    assert record["document"] == shown.out.decode()
    assert (record["tenant_id"], record["format"]) == ("newcomer", policy_format.value)
    assert "arn:aws:iam::444455556666:role/keystow" in record["document"]


def test_a_policy_on_a_terminal(keystow: Command) -> None:
    """Line by line, as in a pipe."""
    code, shown = keystow.on_terminal("tenant", "key-policy", "acme", "--data-center", "eu", "--format", "terraform")
    assert code == 0
    assert 'resource "aws_kms_key" "keystow_acme" {' in shown.splitlines()


def test_no_policy_for_the_local_keyring(keystow: Command) -> None:
    """The command that makes a key there is told."""
    refused = keystow.in_process("tenant", "key-policy", "acme", *IN_US, "--format", "console-steps")
    assert refused.code == 4
    assert "keystow-service keys create --region us-east-1 --tenant acme" in refused.err


def test_the_synchronous_client(onboarding: KeystowServer, keyring: KeyringAdmin) -> None:
    """The same, from a program."""
    arn = keyring.create("us-east-1", tenants=["acme"]).arn
    keyring.disable(arn)
    with Client(onboarding.address) as client:
        report = client.check_key("acme", data_center="us", kms_key_arn=arn.text)
        document = client.get_key_policy("acme", data_center="eu", policy_format=KeyPolicyFormat.KEY_POLICY_JSON)
    assert (report.usable, report.state) == (False, KeyState.DISABLED)
    assert len(json.loads(document)["Statement"]) == 2
