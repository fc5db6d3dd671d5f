"""The command on a terminal: bars, questions, and names that cannot act on it."""

from client.command import Command
from client.scripted import MIB, ScriptedServer

ESCAPE = "\x1b]0;owned\x07\x1b[2Jred\u202eevil"


def test_names_cannot_act_on_a_terminal(server: ScriptedServer, keystow: Command) -> None:
    """Control and format characters of keys appear escaped; a pipe gets them raw, and JSON is ASCII."""
    server.storage.add(ESCAPE, b"data")
    for arguments in (["ls", "acme"], ["ls", "-l", "acme"], ["stat", f"acme:{ESCAPE}"]):
        code, shown = keystow.on_terminal(*arguments)
        assert code == 0
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert r"\x1b]0;owned\x07\x1b[2Jred\u202eevil" in shown
    assert keystow("ls", "acme").out.decode() == ESCAPE + "\n"
    raw = keystow("ls", "--json", "acme")
    assert raw.out.isascii()
    assert raw.records[0]["key"] == ESCAPE
    assert b"\x1b" not in keystow("stat", f"acme:{ESCAPE}").out


def test_messages_cannot_act_on_a_terminal(server: ScriptedServer, keystow: Command) -> None:
    """Nor can a key in a message, terminal or not: logs are read on terminals too."""
    assert "\x1b" not in keystow("stat", f"acme:{ESCAPE}").err
    assert "\x1b" not in keystow("get", f"acme:{ESCAPE}", "dest").err


def test_bars_are_shown_on_a_terminal_only(server: ScriptedServer, keystow: Command) -> None:
    """A terminal shows how far a transfer is, and the result above it; a pipe gets the result alone."""
    (keystow.directory / "f").write_bytes(bytes(5 * MIB))
    code, shown = keystow.on_terminal("put", "f", "acme:")
    assert code == 0
    assert "━" in shown
    assert "acme:f" in shown
    code, shown = keystow.on_terminal("get", "acme:f", "g")
    assert code == 0
    assert "━" in shown
    assert (keystow.directory / "g").stat().st_size == 5 * MIB
    code, shown = keystow.on_terminal("get", "--json", "acme:f", "h")
    assert "━" not in shown
    result = keystow("put", "f", "acme:g")
    assert (result.out, result.err) == (b"acme:g\n", "")


def test_a_tree_is_summed_up_on_a_terminal(server: ScriptedServer, keystow: Command) -> None:
    """Many transfers end with their sum."""
    for name in ("a", "b", "c"):
        (keystow.directory / name).write_bytes(b"data")
    code, shown = keystow.on_terminal("put", "a", "b", "c", "acme:")
    assert code == 0
    assert "3 transferred, 12 B" in shown


def test_registering_asks_first(server: ScriptedServer, keystow: Command) -> None:
    """On a terminal yes registers, no does not, and --confirm-permanent does not ask."""
    arguments = ("tenant", "register", "acme", "--data-center", "us", "--provider-managed")
    code, shown = keystow.on_terminal(*arguments, typed=b"n\n")
    assert code == 1
    assert "can never be changed" in shown
    assert not server.tenants.requests
    code, _ = keystow.on_terminal(*arguments, typed=b"y\n")
    assert code == 0
    assert server.tenants.requests[0].confirm_permanent
    code, shown = keystow.on_terminal(*arguments, "--confirm-permanent")
    assert code == 0
    assert "?" not in shown
