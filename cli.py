"""The two commands, ``embedcache`` and ``heads``: which subcommands they have, and how they end.

Exit codes: 0 done, 1 something found on the way was wrong (one line says what, where and what to do), 2 wrong
usage, 3 done but for sequences that the encoder cannot take (they are named), 128 + n stopped cleanly by signal n (130
Ctrl-C, 143 SIGTERM). Anything else is our bug and keeps its traceback.
"""

import io
import os
import sys

import typer

from embedcache.errors import EmbedCacheError, InvalidSettingError, SkippedError
from embedcache.interrupt import StoppedError

__all__ = ["embedcache", "heads"]


def embedcache() -> None:
    """Entry point of ``embedcache``."""
    from embedcache.commands import app

    _run(app)


def heads() -> None:
    """Entry point of ``heads``."""
    from heads.commands import app

    _run(app)


def _run(app: typer.Typer) -> None:
    # before torch is imported: threads that spin at barriers made a build ten times slower on two busy cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path that is not UTF-8 is shown, not a reason to end
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except StoppedError as error:
        sys.exit(_say(error, 128 + error.signal_number))
    except SkippedError as error:
        sys.exit(_say(error, 3))
    except InvalidSettingError as error:
        sys.exit(_say(error, 2))
    except EmbedCacheError as error:
        sys.exit(_say(error, 1))


def _say(error: EmbedCacheError, code: int) -> int:
    print(f"error: {error}" if code < 128 else str(error), file=sys.stderr)
    return code
