"""Tell of workers' passes that failed."""

import structlog

from app.kernel.errors import DoorbusterError

_log = structlog.get_logger(__name__)


class LogReporter:
    """A kernel.loop Reporter that writes one log line per failed pass it is told of."""

    def pass_failed(self, worker: str, error: BaseException, wait_ms: int) -> None:
        """Log what failed; the trace only where we did not raise it on purpose."""
        expected = isinstance(error, DoorbusterError)
        _log.warning(
            "pass_failed",
            worker=worker,
            error=str(error),
            kind=type(error).__name__,
            wait_ms=wait_ms,
            exc_info=None if expected else error,
        )
