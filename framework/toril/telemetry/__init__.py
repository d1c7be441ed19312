"""What tells an operator what happens: logs with the job they belong to, and the hiding of secrets."""

from __future__ import annotations

from toril.telemetry.context import LOG_CONTEXT, LogContext, current_log_fields
from toril.telemetry.logs import JobLogger, LogFormat, Logger, LogLevel, configure_logging, get_logger
from toril.telemetry.redaction import redact, redact_text, redact_url

__all__ = [
    "LOG_CONTEXT",
    "JobLogger",
    "LogContext",
    "LogFormat",
    "LogLevel",
    "Logger",
    "configure_logging",
    "current_log_fields",
    "get_logger",
    "redact",
    "redact_text",
    "redact_url",
]
