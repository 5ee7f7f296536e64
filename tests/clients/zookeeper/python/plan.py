"""What every ZooKeeper client's program has in common; the Python statement of it.

    PROGRAM HOST:PORT ROOT REAPS_WITHIN_S

A program makes its checks one after another, each below a node of its own,
ROOT/<check>; a check that fails does not keep the next from being made. Those that
need the server to go away come last:

    RESTART         the runner ends the server with SIGTERM and starts it again,
    RESTART KILL    with SIGKILL; both on the same port and the same data

after which the program waits for a line on its standard input. The session that is
to survive it holds an ephemeral node and one watch of each kind, armed before:

    ROOT/restart/data      data watch      set afterwards
    ROOT/restart/missing   exists watch    created afterwards
    ROOT/restart           child watch     fires by that creation
    ROOT/restart/mine      ephemeral       the session's own, still there

A program that is called with one more word, `hold`, is its own victim: it opens a
session of 4 s with an ephemeral ROOT/expiry/doomed and one of 30 s with
ROOT/move/kept, prints `HELD id password` of the second, and waits to be killed.
"""

import signal
import sys
import time

# One wait for one thing, and one check, take no longer. An expiry is told after
# 4 s by us, and after up to two ticks more by ZooKeeper.
WAIT_S = 20
CHECK_S = 40
# Longer than any restart takes, and within what servers grant (20 ticks of 2 s).
SESSION_S = 30
SHORT_SESSION_S = 4

LARGE = bytes(i * 7 % 251 for i in range(1_000_000))
TOO_LARGE = bytes(1_100_000)
OUTSTANDING = 2_000
SURVIVORS = 300


class Failed(Exception):
    """What was seen, and what was to be seen instead."""


def say(line):
    print(line.replace("\n", " "), flush=True)


def expect(holds, what):
    if not holds:
        raise Failed(what)


def equal(what, got, want):
    expect(got == want, f"{what} is {got!r}, not {want!r}")


def differ(what, got, not_this):
    expect(got != not_this, f"{what} is still {got!r}")


def raises(error, what, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    except Exception as other:
        raise Failed(f"{what}: {other!r}, not {error.__name__}") from other
    raise Failed(f"{what} succeeded, instead of {error.__name__}")


def until(condition, what, within_s=WAIT_S):
    end = time.monotonic() + within_s
    while not condition():
        expect(time.monotonic() < end, f"waited {within_s} s for {what}")
        time.sleep(0.01)


def skip(names, reason):
    for name in names.split():
        say(f"CHECK {name} skip {reason}")


def check(name, made, *args):
    """Makes one check; its return value is the detail."""

    def too_long(*_):
        raise Failed(f"it took longer than {CHECK_S} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(CHECK_S)
    try:
        detail = made(*args)
        say(f"CHECK {name} ok {detail or ''}".rstrip())
    except Exception as error:
        why = str(error) if isinstance(error, Failed) else repr(error)
        say(f"CHECK {name} fail {why}")
    finally:
        signal.alarm(0)


def await_restart(kill=False):
    say("RESTART KILL" if kill else "RESTART")
    expect(sys.stdin.readline(), "the runner is gone")
