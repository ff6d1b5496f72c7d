"""
Configure logs: one line per change of state, none per refused request.

JSON off a terminal, for machines; aligned and coloured on one, for people.
Always to stderr: stdout belongs to commands' answers. Lines of libraries pass
through the same renderer.
"""

import logging
import os
import sys
from typing import Final

import structlog
from structlog.typing import Processor

LEVEL: Final = logging.INFO
# asyncio names every slow callback in debug mode; aiohttp repeats what the boundary logged.
_QUIET: Final = ("asyncio", "aiohttp.access", "aiohttp.server")


def configure(
    role: str,
    *,
    process: str = "",
    level: int = LEVEL,
    colors: bool = True,
) -> None:
    """
    Send all logs of this process to stderr.

    Args:
        role: api, worker, coordinator, sandbox or cli; on every line.
        process: tells processes of one role apart; empty leaves it out.
        level: of `logging`; lines below it are dropped.
        colors: on a terminal; False where NO_COLOR is set.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    _configure_standard(shared, level, _renderers(colors=colors))
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role, pid=os.getpid())
    if process:
        structlog.contextvars.bind_contextvars(process=process)


def _configure_standard(
    shared: list[Processor],
    level: int,
    renderers: list[Processor],
) -> None:
    """Let `logging` carry our lines and the libraries' through one renderer."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [stream]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _renderers(*, colors: bool) -> list[Processor]:
    if sys.stderr.isatty():
        plain = structlog.dev.plain_traceback  # without locals: they hold shoppers and keys
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    return [
        # Without the locals of each frame: they hold shoppers, bodies and keys.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        structlog.processors.JSONRenderer(),
    ]
