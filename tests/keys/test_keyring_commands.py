"""``keystow-service keys``, as an administrator types it: one process per command."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.adapters.registry import open_registry
from keystow_service.errors import KmsKeyDisabledError
from keystow_service.model import KeyArn, KeyManagement, Tenant, TenantId

_COMMAND = [sys.executable, "-c", "from keystow_service.cli_keys import keys; keys()"]


class Shell:
    """Runs commands in a folder, with nothing of the caller's environment that keystow reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTOW_")}
        self.environment = {**environment, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*_COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with self.start(*arguments) as process:
            output, errors = process.communicate()
        return process.returncode, output, errors

    def ok(self, *arguments: str) -> str:
        code, output, errors = self.run(*arguments)
        assert (code, errors) == (0, "")
        return output.strip()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_life_of_a_key(shell: Shell) -> None:
    """Each command does its part, says the state, and finds the keyring in ./data."""
    arn = shell.ok("create", "--init", "--region", "us-east-1", "--tenant", "acme", "--description", "Acme's own")
    assert KeyArn.parse(arn).region == "us-east-1"
    assert (shell.folder / "data" / "keyring" / "root.key").stat().st_mode & 0o777 == 0o600
    assert shell.ok("list") == f"{arn}  ENABLED  acme  Acme's own"
    assert shell.ok("disable", arn) == f"{arn}  DISABLED"
    assert shell.ok("enable", arn) == f"{arn}  ENABLED"
    assert shell.ok("rotate", arn) == f"{arn}  ENABLED  rotated: new material, number 2; the older ones still open"
    assert shell.ok("schedule-deletion", arn, "--days", "7").startswith(f"{arn}  PENDING_DELETION until 20")
    assert shell.ok("cancel-deletion", arn) == f"{arn}  DISABLED"


def test_json(shell: Shell) -> None:
    """With --json each command prints the key, and list all of them."""
    created = json.loads(
        shell.ok("create", "--init", "--region", "eu-west-2", "--tenant", "b-tenant", "--tenant", "acme", "--json")
    )
    assert created["tenants"] == ["acme", "b-tenant"]
    scheduled = json.loads(shell.ok("schedule-deletion", created["arn"], "--json"))
    assert scheduled["state"] == "PENDING_DELETION"
    assert scheduled["deletion_time"].endswith("+00:00")
    assert json.loads(shell.ok("list", "--json")) == [scheduled]


def test_places(shell: Shell, tmp_path: Path) -> None:
    """The keyring is where KEYSTOW_DATA_DIR, --data-dir or --keyring say, the last one first."""
    shell.environment["KEYSTOW_DATA_DIR"] = str(tmp_path / "from-environment")
    shell.ok("create", "--init", "--region", "us-east-1", "--tenant", "acme")
    assert (tmp_path / "from-environment" / "keyring" / "keyring.json").exists()
    shell.ok(
        "create", "--init", "--region", "us-east-1", "--tenant", "acme", "--data-dir", str(tmp_path / "from-option")
    )
    assert (tmp_path / "from-option" / "keyring" / "keyring.json").exists()
    shell.ok(
        "create", "--init", "--region", "us-east-1", "--tenant", "acme", "--keyring", str(tmp_path / "alone" / "k.json")
    )
    assert (tmp_path / "alone" / "root.key").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", "--init", "--region", "moon", "--tenant", "acme"], "'moon' is no region"),
        (["create", "--init", "--region", "us-east-1", "--tenant", "ACME"], "3 to 63"),
        (["create", "--region", "us-east-1"], "--tenant"),
        (["disable", "alias/acme"], "is an alias"),
        (["disable"], "ARN"),
        (["schedule-deletion", "arn:aws:kms:us-east-1:000000000000:key/x", "--days", "6"], "'--days'"),
        (["destroy"], "No such command"),
    ],
)
def test_bad_input(shell: Shell, arguments: list[str], complaint: str) -> None:
    """What cannot be meant is refused with exit code 2, in words, with nothing made."""
    code, output, errors = shell.run(*arguments)
    assert (code, output) == (2, "")
    assert complaint in errors
    assert "Traceback" not in errors
    assert not (shell.folder / "data").exists()


def test_failures(shell: Shell) -> None:
    """What does not work out ends with exit code 1 and a sentence that names the file or key."""
    code, output, errors = shell.run("list")
    assert (code, output) == (1, "")
    assert "data/keyring/keyring.json" in errors
    assert not (shell.folder / "data").exists()
    arn = shell.ok("create", "--init", "--region", "us-east-1", "--tenant", "acme")
    code, _, errors = shell.run("cancel-deletion", arn)
    assert code == 1
    assert f"{arn} is not scheduled for deletion" in errors
    unknown = arn[:-12] + "0" * 12
    code, _, errors = shell.run("disable", unknown)
    assert code == 1
    assert f"There is no key {unknown}" in errors
    assert "Traceback" not in errors


async def test_running_server_sees_commands(shell: Shell) -> None:
    """What a command did counts for a server that was running before, at once."""
    folder = shell.folder / "data" / "keyring"
    server = open_local_keyring(folder / "keyring.json", folder / "root.key", SystemClock())
    arn = KeyArn.parse(shell.ok("create", "--init", "--region", "us-east-1", "--tenant", "acme"))
    context = {"keystow:tenant": "acme"}
    key = await server.generate_data_key(arn, context)
    shell.ok("disable", arn.text)
    with pytest.raises(KmsKeyDisabledError):
        await server.unwrap(arn, key.wrapped, context)
    shell.ok("enable", arn.text)
    assert (await server.unwrap(arn, key.wrapped, context)).plaintext == key.plaintext


def test_no_second_keyring_by_accident(shell: Shell) -> None:
    """In a place without a keyring, the wrong one perhaps, nothing is made unless somebody says so."""
    for command in (("create", "--region", "us-east-1", "--tenant", "acme"), ("list",)):
        code, output, errors = shell.run(*command)
        assert (code, output) == (1, "")
        for named in ("data/keyring/keyring.json", "--config", "--data-dir", "--init"):
            assert named in errors
    assert not (shell.folder / "data").exists()


def test_the_servers_settings_say_where(shell: Shell, tmp_path: Path) -> None:
    """--config or KEYSTOW_CONFIG finds the keyring where the server of those settings has it; wrong ones are named."""
    config = tmp_path / "keystow.toml"
    config.write_text(f'data_dir = "{tmp_path / "elsewhere"}"')
    arn = shell.ok("create", "--init", "--region", "us-east-1", "--tenant", "acme", "--config", str(config))
    assert (tmp_path / "elsewhere" / "keyring" / "keyring.json").exists()
    shell.environment["KEYSTOW_CONFIG"] = str(config)
    assert shell.ok("list") == f"{arn}  ENABLED  acme"
    config.write_text("listn = 1")
    assert shell.run("list") == (2, "", "keystow-service: listn: there is no such setting\n")


@pytest.fixture
async def provider_key(shell: Shell) -> str:
    """Of a deployment in ./data with two tenants, one under a key of its own."""
    folder = shell.folder / "data" / "keyring"
    admin = KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())
    provider = admin.ensure_provider_key("us-east-1")
    own = admin.create("us-east-1", tenants=["globex"]).arn
    async with open_registry(f"sqlite+aiosqlite:///{shell.folder / 'data' / 'registry.db'}") as registry:
        for name, management, arn in (
            ("acme", KeyManagement.PROVIDER, provider),
            ("globex", KeyManagement.SELF, own),
        ):
            await registry.add(Tenant(TenantId(name), "", management, arn, "us", SystemClock().now()))
    return provider.text


@pytest.mark.parametrize("command", ["disable", "schedule-deletion"])
def test_a_key_of_many_tenants_is_not_stopped_by_accident(shell: Shell, provider_key: str, command: str) -> None:
    """Who is affected is named, and nothing happens until somebody says that all of them are meant."""
    code, output, errors = shell.run(command, provider_key)
    assert (code, output) == (1, "")
    assert "registered with it: acme." in errors
    assert "--yes-all-tenants" in errors
    assert shell.ok("list").splitlines()[0].startswith(f"{provider_key}  ENABLED")
    assert provider_key in shell.ok(command, provider_key, "--yes-all-tenants")
    assert not shell.ok("list").splitlines()[0].startswith(f"{provider_key}  ENABLED")


@pytest.mark.parametrize(("typed", "state"), [("all tenants", "DISABLED"), ("yes", "ENABLED")])
def test_on_a_terminal_the_word_is_typed(shell: Shell, provider_key: str, typed: str, state: str) -> None:
    """Not a letter that a hand types by itself."""
    ours, its = pty.openpty()
    try:
        os.write(ours, f"{typed}\n".encode())
        with shell.start("disable", provider_key, stdin=its) as process:
            _, errors = process.communicate()
        assert process.returncode == (0 if state == "DISABLED" else 1)
        assert "acme" in errors
    finally:
        os.close(ours)
        os.close(its)
    assert shell.ok("list").splitlines()[0].startswith(f"{provider_key}  {state}")


def test_processes_at_once(shell: Shell) -> None:
    """Commands of several processes at once, on a keyring that does not exist yet, all have their effect."""
    processes = [shell.start("create", "--init", "--region", "us-east-1", "--tenant", "acme") for _ in range(6)]
    arns = []
    for process in processes:
        with process:
            output, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
        arns.append(output.strip())
    listed = json.loads(shell.ok("list", "--json"))
    assert sorted(key["arn"] for key in listed) == sorted(arns)
    keyring = shell.folder / "data" / "keyring"
    open_local_keyring(keyring / "keyring.json", keyring / "root.key", SystemClock())


def test_provider_key_of_processes_at_once(shell: Shell) -> None:
    """Several servers that start at once agree on one provider key."""
    script = (
        "from pathlib import Path; from keystow_service.adapters.clock import SystemClock;"
        "from keystow_service.adapters.keyring_admin import KeyringAdmin;"
        "admin = KeyringAdmin(Path('k/keyring.json'), Path('k/root.key'), SystemClock());"
        "print(admin.ensure_provider_key('us-east-1'))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script], cwd=shell.folder, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    answers = set()
    for process in processes:
        with process:
            answers.add(process.communicate()[0])
        assert process.returncode == 0
    assert len(answers) == 1
