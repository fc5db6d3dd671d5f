"""Logs: one JSON object a line on standard error, fields by name, never an exception's own text.

The promise: a log that cannot be written, because its disk is full or its reader is gone, makes nothing else fail.
"""

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

from keystow_service.settings import LogFormat


def configure(log_format: LogFormat) -> None:
    """Set up structlog for the process. Libraries' own loggers stay silent: their texts may hold what ours must not."""
    as_json = log_format is LogFormat.JSON
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lenient(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.lastResort = None
    logging.getLogger().addHandler(logging.NullHandler())


class _Lenient:
    """As much of a stream as structlog uses. What cannot be written is forgotten."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Or not."""
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Or not."""
        with suppress(OSError):
            self._stream.flush()
