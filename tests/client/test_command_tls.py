"""The command in TLS: its options, the environment, and one line where it fails."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.command import Command
from client.secured import Secured
from servers.keystow import KeystowServer


@pytest.fixture
def here(secured: Secured, tmp_path: Path) -> Command:
    """The command, for the server that wants client certificates, told nothing of TLS."""
    return Command(secured.mutual.address, tmp_path)


def options(secured: Secured, ca: str = "ca.crt") -> list[str]:
    """The connector's."""
    names = {"--ca-file": ca, "--client-certificate": "connector.crt", "--client-key": "connector.key"}
    return [text for option, name in names.items() for text in (option, str(secured.folder / name))]


def test_options(secured: Secured, here: Command) -> None:
    """A backup and its way back, the options before the command's name, after it, or some here and some there."""
    given = options(secured)
    register = ["tenant", "register", "command", "--data-center", "us", "--provider-managed", "--confirm-permanent"]
    assert here.in_process(*register, *given).code == 0
    (here.directory / "file").write_bytes(b"data")
    assert here.in_process(*given, "put", "file", "command:").code == 0
    assert here.in_process(*given[:2], "get", *given[2:], "command:file", "back").code == 0
    assert (here.directory / "back").read_bytes() == b"data"


def test_the_environment(secured: Secured, here: Command) -> None:
    """Variables do as well as options, option by option; an option goes before its variable."""
    told = replace(here, variables=secured.variables)
    assert told("server-info").code == 0
    wrong = replace(here, variables={**secured.variables, "KEYSTOW_CA_FILE": str(secured.folder / "others.crt")})
    assert wrong.in_process("server-info").code == 8
    assert wrong.in_process("server-info", "--ca-file", str(secured.folder / "ca.crt")).code == 0


def test_a_name_and_nothing_else(secured: Secured, here: Command) -> None:
    """KEYSTOW_TLS and --tls connect to loopback with the authorities of this machine; any other part means TLS too."""
    unknown = "name the right one as ca_file"
    for command, arguments in (
        (here, ["--tls"]),
        (here, ["--server-name", "localhost"]),
        (replace(here, variables={"KEYSTOW_TLS": "true"}), []),
        (replace(here, variables={"KEYSTOW_SERVER_NAME": "localhost"}), []),
        (replace(here, variables={"KEYSTOW_INSECURE": "true"}), ["--tls"]),
    ):
        result = command.in_process("server-info", *arguments)
        assert (result.code, result.out) == (8, b"")
        assert unknown in result.err


def test_insecure(real_server: KeystowServer, tmp_path: Path, secured: Secured) -> None:
    """Beyond loopback only --insecure or its variable sends anything in clear; the option goes before the variables."""
    address = f"0.0.0.0:{real_server.address.rpartition(':')[2]}"
    silent = Command(address, tmp_path)
    assert "does not speak TLS" in silent.in_process("server-info").err
    assert silent.in_process("server-info", "--insecure").code == 0
    assert replace(silent, variables={"KEYSTOW_INSECURE": "true"}).in_process("server-info").code == 0
    assert replace(silent, variables=secured.variables).in_process("server-info", "--insecure").code == 0


def test_failures_are_one_line(secured: Secured, real_server: KeystowServer, here: Command) -> None:
    """Told at once with what to do, code 8, nothing of gRPC's own around it; for programs as JSON."""
    ca = ["--ca-file", str(secured.folder / "ca.crt")]
    for run, arguments, says in (
        # gRPC writes lines about these two, if it is let.
        (here, options(secured, "others.crt"), "was not issued by an authority in ca_file."),
        (here, [*ca, "--address", real_server.address], "does not speak TLS: "),
        (here.in_process, [*options(secured), "--server-name", "else.example.org"], "is not for else.example.org: "),
        (here.in_process, ca, "it wants client_certificate and client_key."),
        (here.in_process, [], "The server speaks TLS: connect with tls, or with ca_file"),
    ):
        result = run("server-info", *arguments)
        assert (result.code, result.out) == (8, b"")
        assert result.err.startswith("keystow: The server")
        assert says in result.err
        assert result.err.count("\n") == 1
    [failure] = here.in_process("server-info", "--json", *ca).failures
    assert (failure["subject"], failure["code"], failure["recovery"]) == ("server-info", "UNAVAILABLE", "wait")
    assert failure["attempts"] == 1


def test_a_whole_directory_fails_once(secured: Secured, here: Command) -> None:
    """What is wrong with the connection is not tried out on every file."""
    for number in range(20):
        (here.directory / str(number)).touch()
    result = here.in_process("put", "-r", "-j", "1", ".", "acme:", "--ca-file", str(secured.folder / "others.crt"))
    assert result.code == 8
    assert result.err.count("was not issued by") == 1
    assert "the rest was not tried" in result.err


def test_usage(secured: Secured, here: Command) -> None:
    """Contradictions, files that are not there, and what is neither true nor false are code 2."""
    certificate = str(secured.folder / "connector.crt")
    for variables, arguments, says in (
        ({}, ["--insecure", "--tls"], "--insecure is a connection without TLS"),
        ({}, ["--insecure", "--ca-file", "ca.crt"], "--insecure is a connection without TLS"),
        ({}, ["--client-certificate", certificate], "client_key is missing"),
        ({}, ["--ca-file", "nowhere"], "ca_file: nowhere cannot be read"),
        ({"KEYSTOW_CA_FILE": "nowhere"}, [], "ca_file: nowhere cannot be read"),
        ({"KEYSTOW_TLS": "maybe"}, [], "KEYSTOW_TLS is maybe, and has to be true or false"),
        ({"KEYSTOW_INSECURE": "true", "KEYSTOW_TLS": "true"}, [], "KEYSTOW_INSECURE is a connection without TLS"),
        ({"KEYSTOW_INSECURE": "true", "KEYSTOW_CA_FILE": "f"}, [], "KEYSTOW_INSECURE is a connection without TLS"),
        ({"KEYSTOW_TLS": "false"}, ["--address", "10.0.0.7:50051"], "10.0.0.7:50051 is beyond loopback"),
        ({}, ["--address", "https://keystow"], "has to be HOST:PORT"),
    ):
        result = replace(here, variables=variables).in_process("server-info", *arguments)
        assert (result.code, result.out) == (2, b""), arguments
        assert says in " ".join(result.err.split())
