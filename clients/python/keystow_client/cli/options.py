"""The options that every command shares. They may stand before the command's name or after it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from keystow_client.tls import Tls, tls_in_environment

DEFAULT_RETRY_FOR = 60.0


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """As given; None where they are not."""

    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="The service. [default: $KEYSTOW_ADDRESS or 127.0.0.1:50051]",
            show_default=False,
        ),
    ] = None
    tls: Annotated[
        bool | None,
        typer.Option("--tls", help="Connect in TLS. [default: $KEYSTOW_TLS, or beyond loopback]", show_default=False),
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            metavar="FILE",
            help="Who issued the server's certificate. [default: $KEYSTOW_CA_FILE, or whom this machine trusts]",
            show_default=False,
        ),
    ] = None
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            "--client-certificate",
            metavar="FILE",
            help="Shows the server who you are. [default: $KEYSTOW_CLIENT_CERTIFICATE]",
            show_default=False,
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        typer.Option(
            "--client-key", metavar="FILE", help="Its private key. [default: $KEYSTOW_CLIENT_KEY]", show_default=False
        ),
    ] = None
    server_name: Annotated[
        str | None,
        typer.Option(
            "--server-name",
            metavar="NAME",
            help="What the server's certificate is for. [default: $KEYSTOW_SERVER_NAME, or HOST]",
            show_default=False,
        ),
    ] = None
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure",
            help="Connect in clear, also beyond loopback: the network must be protected. [default: $KEYSTOW_INSECURE]",
            show_default=False,
        ),
    ] = None
    as_json: Annotated[
        bool | None,
        typer.Option("--json", help="One JSON object a line; failures as JSON on stderr.", show_default=False),
    ] = None
    retry_for: Annotated[
        float | None,
        typer.Option(
            "--retry-for",
            metavar="SECONDS",
            min=0,
            help=f"How long to go on after a first failure that passes; 0 tries once. [default: {DEFAULT_RETRY_FOR:g}]",
            show_default=False,
        ),
    ] = None

    def or_else(self, other: "SharedOptions") -> "SharedOptions":
        """These, completed by those."""
        return SharedOptions(
            *(
                getattr(other, field.name) if getattr(self, field.name) is None else getattr(self, field.name)
                for field in fields(self)
            )
        )

    @property
    def tls_in_force(self) -> Tls | None:
        """What they say about TLS, completed by the environment; None if they say nothing about it."""
        parts = ("ca_file", "client_certificate", "client_key", "server_name")
        given = {name: value for name in parts if (value := getattr(self, name)) is not None}
        if not (self.tls or given):
            return None
        if self.insecure:
            raise typer.BadParameter("--insecure is a connection without TLS: leave out either it or the others")
        return Tls(**{**tls_in_environment(), **given})


def with_shared_options(function: Callable[..., None], own: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """The function as Typer takes it: with parameters of its own, and one for each shared option."""
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in get_type_hints(SharedOptions, include_extras=True).items()
    ]
    signature = inspect.Signature([*own, *shared])
    function.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature gives Typer
    function.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return function
