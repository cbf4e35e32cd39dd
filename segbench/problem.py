"""Bad input, and how scripts end: with one line and a status instead of a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class Problem(Exception):
    """Bad input. Its text is one line: what is wrong and what to do."""


def exit_with(main: Callable[[], int | None], kept: str = "nothing is lost") -> NoReturn:
    """Run a script's main function and exit with its status; with 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM, 129
    for SIGHUP, 0 where whoever reads the output has enough. `kept`: what an interrupt leaves."""
    name, received = Path(sys.argv[0]).name, [signal.SIGINT]
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the shell
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    try:
        interrupt_on_signals(received)
        try:
            status = main() or 0
        finally:  # of --help too: what is left would break at the end of the process, where nothing can catch it
            sys.stdout.flush()
    except Problem as problem:
        print(f"{name}: {problem}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; {kept}", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `| head`
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        status = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"{name}: {error.filename or 'the output'} cannot be written: {error.strerror}; {kept}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it would fail once more
        status = 2
    sys.exit(128 + received[-1] if status == 130 else status)


def interrupt_on_signals(received: list[int]) -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt; which one came is added to a list."""

    def stop(number: int, _) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, stop)
