"""Waiting for an event, bounded by a deadline. Nothing else in the tests sleeps.

Deadlines are seconds of a quiet machine; GATEWAYD_TEST_SLOW, which is 3 for a build with sanitizers, multiplies all of them."""

import contextlib
import time

from .build import SLOW

DEADLINE = 40.0


def seconds(n):
    """How long to wait for what takes no more than n seconds on a quiet machine: for timeouts of sockets and of programs."""
    return n * SLOW


def until(condition, what, deadline=DEADLINE, interval=0.02):
    """Calls condition until it gives something true, and returns that."""
    end = time.monotonic() + seconds(deadline)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds(deadline):g} s: {what() if callable(what) else what}"
        time.sleep(interval)


# ---- times that the gateway is given, in which a test has something to do ------------------------------------------------------


class TooSlow(Exception):
    """The test took longer than the gateway was told to wait for it: what it saw proves nothing."""


@contextlib.contextmanager
def within(milliseconds):
    """What fails here may have failed only because it took that long."""
    began = time.monotonic()
    try:
        yield
    except (AssertionError, OSError) as e:
        if time.monotonic() - began >= milliseconds / 1000:
            raise TooSlow(f"not done within {milliseconds} ms") from e
        raise


def with_time_enough(attempt, *times):
    """attempt(milliseconds) with the first of these times; where that was TooSlow, with the next. The last one counts."""
    for milliseconds in times[:-1]:
        try:
            return attempt(milliseconds)
        except TooSlow:
            pass
    return attempt(times[-1])
