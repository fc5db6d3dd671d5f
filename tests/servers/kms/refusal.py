"""An error answer of AWS: code, text and HTTP status."""


class Refusal(Exception):  # noqa: N818 - an answer of the protocol
    """Ends a request. AWS leaves the text out of some answers: ``message`` is None then."""

    def __init__(self, code: str, message: str | None, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.status = status


def not_found(key_id: str) -> Refusal:
    """No such key."""
    return Refusal("NotFoundException", f"Key '{key_id}' does not exist")


def invalid(message: str) -> Refusal:
    """A request that breaks the rules of its fields."""
    return Refusal("ValidationException", message)
