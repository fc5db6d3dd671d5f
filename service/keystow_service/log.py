"""Logs: one JSON object a line on standard error, fields by name, never an exception's own text."""

import logging
import sys

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
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.lastResort = None
    logging.getLogger().addHandler(logging.NullHandler())
