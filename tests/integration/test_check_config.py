"""``keystow-service check-config``: says what is wrong with the settings, by name, in one line each, and what holds."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner, Result

from keystow_service.cli import app

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
AWS = f"""
deployment_id = "prod"
[data_centers.eu]
region = "eu-central-1"
bucket = "backups"
provider_key_arn = "{ARN}"
"""


class Wrong(NamedTuple):
    """Settings, and what the line about them must say."""

    says: str
    toml: str = ""
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed


WRONG = {
    "unknown variable": Wrong("KEYSTOW_LISTN: there is no such setting", environment={"KEYSTOW_LISTN": "x"}),
    "unknown name": Wrong("listn: there is no such setting", 'listn = "127.0.0.1:1"'),
    "unknown section": Wrong("tls: there is no such setting", "[tls]\nkey = 1"),
    "unknown name of a data centre": Wrong(
        "data_centers.eu.buckt: there is no such setting", '[data_centers.eu]\nregion = "eu-west-1"\nbuckt = "b"'
    ),
    "unknown name of a data centre, as a variable": Wrong(
        "data_centers.eu.buckt: there is no such setting",
        '[data_centers.eu]\nregion = "eu-west-1"',
        {"KEYSTOW_DATA_CENTERS__EU__BUCKT": "b"},
    ),
    "no TOML": Wrong("is not TOML", "listen = "),
    "not UTF-8": Wrong("is not TOML", "listen = '\udcff'"),
    "listen: no port": Wrong("listen: ", 'listen = "127.0.0.1"'),
    "listen: a word": Wrong("listen: ", 'listen = "127.0.0.1:http"'),
    "listen: no such port": Wrong("listen", 'listen = "127.0.0.1:65536"'),
    "metrics_listen: no such port": Wrong("metrics_listen", 'metrics_listen = "127.0.0.1:65536"'),
    "listen: no host": Wrong("listen: ", 'listen = ":50051"'),
    "listen: everywhere": Wrong("listen is 0.0.0.0:50051, which is beyond loopback", 'listen = "0.0.0.0:50051"'),
    "listen: everywhere, IPv6": Wrong("listen is [::]:50051, which is beyond loopback", 'listen = "[::]:50051"'),
    "listen: a name": Wrong("beyond loopback", 'listen = "keystow.example:50051"'),
    "listen: a name that looks like loopback": Wrong("beyond loopback", 'listen = "127.0.0.1.example:50051"'),
    "listen, as a variable": Wrong("beyond loopback", environment={"KEYSTOW_LISTEN": "10.0.0.1:1"}),
    "deployment_id": Wrong("deployment_id: ", 'deployment_id = "Production"'),
    "no deployment_id": Wrong("deployment_id is missing", AWS.replace('deployment_id = "prod"', "")),
    "no deployment_id, all in variables": Wrong(
        "deployment_id is missing",
        environment={
            "KEYSTOW_DATA_CENTERS__EU__REGION": "eu-central-1",
            "KEYSTOW_DATA_CENTERS__EU__BUCKET": "backups",
            "KEYSTOW_DATA_CENTERS__EU__PROVIDER_KEY_ARN": ARN,
        },
    ),
    "kms_principal_arn: a session": Wrong(
        "kms_principal_arn: must be the ARN of an IAM role or user",
        'kms_principal_arn = "arn:aws:sts::444455556666:assumed-role/keystow/session"\n' + AWS,
    ),
    "kms_principal_arn: a whole account": Wrong(
        "kms_principal_arn: must be the ARN of an IAM role or user",
        'kms_principal_arn = "arn:aws:iam::444455556666:root"\n' + AWS,
    ),
    "kms_principal_arn without KMS": Wrong(
        "kms_principal_arn is set, but no data centre has provider_key_arn",
        'kms_principal_arn = "arn:aws:iam::444455556666:role/keystow"',
    ),
    "no data centres": Wrong("data_centers: ", "data_centers = {}"),
    "name of a data centre": Wrong("data_centers.E U", '[data_centers."E U"]\nregion = "eu-west-1"'),
    "no region": Wrong("data_centers.eu.region: is missing", "[data_centers.eu]"),
    "region": Wrong("data_centers.eu.region: ", '[data_centers.eu]\nregion = "Ireland"'),
    "no provider key": Wrong(
        "data_centers.eu: provider_key_arn is missing", '[data_centers.eu]\nregion = "eu-west-1"\nbucket = "backups"'
    ),
    "provider key is an alias": Wrong("data_centers.eu: provider_key_arn is an alias", AWS.replace("key/", "alias/")),
    "provider key is elsewhere": Wrong(
        "data_centers.eu: provider_key_arn is in eu-central-1, but region is eu-west-1",
        AWS.replace('region = "eu-central-1"', 'region = "eu-west-1"'),
    ),
    "an endpoint without a bucket": Wrong(
        "data_centers.eu: s3_endpoint is set, but bucket is not",
        '[data_centers.eu]\nregion = "eu-west-1"\ns3_endpoint = "http://s3:7070"',
    ),
    "a prefix without a bucket": Wrong(
        "data_centers.eu: prefix is set, but bucket is not", '[data_centers.eu]\nregion = "eu-west-1"\nprefix = "a/"'
    ),
    "an endpoint of KMS without a key": Wrong(
        "data_centers.eu: kms_endpoint is set, but provider_key_arn is not",
        '[data_centers.eu]\nregion = "eu-west-1"\nkms_endpoint = "http://kms"',
    ),
    "bucket": Wrong("data_centers.eu.bucket: ", AWS.replace("backups", "b")),
    "prefix": Wrong("data_centers.eu.prefix: ", f'{AWS}\nprefix = "no-slash"'),
    "prefix that climbs": Wrong("data_centers.eu.prefix: ", f'{AWS}\nprefix = "../"'),
    "endpoint": Wrong("data_centers.eu.s3_endpoint: ", f'{AWS}\ns3_endpoint = "s3.example"'),
    "metrics_listen": Wrong("metrics_listen: must be HOST:PORT, such as ", 'metrics_listen = "9464"'),
    "neither true nor false": Wrong("audit: must be true or false", environment={"KEYSTOW_AUDIT": "maybe"}),
    "none of its words": Wrong(
        "audit_on_failure: must be 'alarm' or 'refuse'", environment={"KEYSTOW_AUDIT_ON_FAILURE": "panic"}
    ),
    "seconds with their unit": Wrong("lease_bound: must be a number", environment={"KEYSTOW_LEASE_BOUND": "60s"}),
    "lease_refresh: 0": Wrong("lease_refresh: must be more than 0", "lease_refresh = 0"),
    "key_probe_interval": Wrong("key_probe_interval: must be at least 1", "key_probe_interval = 0"),
    "endpoint without a host": Wrong("data_centers.eu.s3_endpoint: ", f'{AWS}\ns3_endpoint = "http://"'),
    "bucket that none can be": Wrong("data_centers.eu.bucket: ", AWS.replace("backups", "Backups!")),
    "max_object_size": Wrong("max_object_size: ", "max_object_size = 9000000000000000000000"),
    "a word for a number": Wrong("lease_bound: ", 'lease_bound = "a minute"'),
    "lease_bound": Wrong("lease_bound: ", "lease_bound = 301"),
    "no lease_bound": Wrong("lease_bound: ", "lease_bound = -1"),
    "lease_refresh": Wrong("lease_refresh (60.0) must be less than lease_bound (60.0)", "lease_refresh = 60"),
    "lease_refresh of no lease": Wrong(
        "lease_refresh (1.0) must be less than lease_bound (0.0); without it", "lease_refresh = 1\nlease_bound = 0"
    ),
    "negative": Wrong("drain_timeout: ", "drain_timeout = -1"),
    "not a number": Wrong("stall_timeout: ", "stall_timeout = nan"),
    "endless": Wrong("stall_timeout: ", "stall_timeout = inf"),
    "parts_in_flight": Wrong("parts_in_flight: ", "parts_in_flight = 0"),
    "buffer_budget": Wrong("buffer_budget: ", "buffer_budget = 1000000"),
    "log_format": Wrong("log_format: ", 'log_format = "xml"'),
    "a table that is no JSON": Wrong(
        "KEYSTOW_DATA_CENTERS: is not JSON", environment={"KEYSTOW_DATA_CENTERS": "eu=eu-west-1"}
    ),
    "a data centre that is no table": Wrong("data_centers.eu: ", environment={"KEYSTOW_DATA_CENTERS__EU": "eu-west-1"}),
}


def check_config(tmp_path: Path, toml: str = "", **environment: str) -> Result:
    """The command's outcome; the settings of a file go before ``environment``."""
    config = tmp_path / "keystow.toml"
    config.write_text(toml, encoding="utf-8", errors="surrogateescape")
    return CliRunner().invoke(app, ["check-config", "--config", str(config)], env=environment)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    """One line on standard error that names the setting; exit code 2; nothing is started or made."""
    wrong = WRONG[case]
    result = check_config(tmp_path, wrong.toml, KEYSTOW_DATA_DIR=str(tmp_path / "data"), **wrong.environment)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("keystow-service: ")
    assert wrong.says in line
    assert not re.search(r"Input should|String should|\[a-z\]|\^", line)
    assert not (tmp_path / "data").exists()


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    """A line for each, so that nobody has to run it again and again."""
    result = check_config(tmp_path, "listn = 1\nparts_in_flight = 0\nlease_bound = 301")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["lease_bound", "parts_in_flight", "listn"]
    assert result.exit_code == 2


def test_values_stay_unsaid(tmp_path: Path) -> None:
    """What is wrong may be a secret in the wrong place: its name is enough."""
    canary = "postgresql://keystow:canary-1c7f@db"
    for toml in (f'listen = "{canary}"', f'lease_bound = "{canary}"', f'log_format = "{canary}"', f'x = "{canary}'):
        assert "canary" not in check_config(tmp_path, toml).output
    right = check_config(tmp_path, f'registry_url = "{canary}"')
    assert right.exit_code == 0
    assert "canary" not in right.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Named, with the reason."""
    missing = tmp_path / "missing.toml"
    result = CliRunner().invoke(app, ["check-config"], env={"KEYSTOW_CONFIG": str(missing)})
    assert (result.exit_code, result.stderr) == (
        2,
        f"keystow-service: {missing}: cannot be read: No such file or directory\n",
    )


def test_right_settings_are_shown(tmp_path: Path) -> None:
    """What would be in force, the environment over the file; exit code 0."""
    result = check_config(
        tmp_path,
        f"parts_in_flight = 2\nstall_timeout = 5\n{AWS}",
        KEYSTOW_PARTS_IN_FLIGHT="7",
        KEYSTOW_LISTEN="[::1]:1",
    )
    assert result.exit_code == 0
    assert {"parts_in_flight = 7", "stall_timeout = 5.0", "listen = [::1]:1"} <= set(result.stdout.splitlines())
    assert "data_centers.eu: eu-central-1, objects: bucket backups, keys: AWS KMS" in result.stdout
    assert {"tls_certificate is not set", "audit = true"} <= set(result.stdout.splitlines())
    assert "None" not in result.stdout
    assert "data_centers.us" not in result.stdout


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.8.9.10:50051", "localhost:50051", "[::1]:50051"])
def test_loopback_needs_no_permission(tmp_path: Path, listen: str) -> None:
    """All of 127.0.0.0/8, ::1, and the name for them."""
    assert check_config(tmp_path, f'listen = "{listen}"').exit_code == 0


def test_beyond_loopback_in_so_many_words(tmp_path: Path) -> None:
    """Whoever says it listens anywhere."""
    permitted = check_config(tmp_path, 'listen = "0.0.0.0:50051"\nlisten_insecurely_beyond_loopback = true')
    assert permitted.exit_code == 0


def test_data_centres_as_json(tmp_path: Path) -> None:
    """A container without a file sets them in one variable, or one variable for each."""
    places = json.dumps({"eu": {"region": "eu-west-1"}})
    result = check_config(tmp_path, KEYSTOW_DATA_CENTERS=places, KEYSTOW_DATA_CENTERS__US__REGION="us-east-1")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("data_centers.")] == [
        "data_centers.eu: eu-west-1, objects: this machine, keys: the keyring in data",
        "data_centers.us: us-east-1, objects: this machine, keys: the keyring in data",
    ]


def test_store_and_keys_are_chosen_apart(tmp_path: Path) -> None:
    """A bucket of one's own with the local keyring, and this machine's disk with KMS: said in words."""
    places = {
        "own": {"region": "eu-west-1", "bucket": "backups", "s3_endpoint": "http://s3:7070"},
        "disk": {"region": "eu-central-1", "provider_key_arn": ARN},
    }
    result = check_config(
        tmp_path, 'deployment_id = "test"', KEYSTOW_DATA_CENTERS=json.dumps(places), KEYSTOW_DATA_DIR="/data"
    )
    assert result.exit_code == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if line.startswith("data_centers.")] == [
        "data_centers.own: eu-west-1, objects: bucket backups, keys: the keyring in /data",
        "data_centers.disk: eu-central-1, objects: this machine, keys: AWS KMS",
    ]


def test_a_deployment_id_may_be_a_variable(tmp_path: Path) -> None:
    """Chosen is chosen, also if it is the name that deployments without a bucket have by themselves."""
    result = check_config(tmp_path, AWS.replace('deployment_id = "prod"', ""), KEYSTOW_DEPLOYMENT_ID="local")
    assert result.exit_code == 0


def test_serve_refuses_the_same(tmp_path: Path) -> None:
    """The server itself, as a process, starts with nothing that check-config refuses."""
    environment = {"PATH": os.environ["PATH"], "KEYSTOW_LISTEN": "0.0.0.0:0", "KEYSTOW_DATA_DIR": str(tmp_path / "d")}
    command = [sys.executable, "-m", "keystow_service", "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("keystow-service: listen is 0.0.0.0:0, which is beyond loopback")
    assert not (tmp_path / "d").exists()
