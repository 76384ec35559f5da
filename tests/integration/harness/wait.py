"""Waiting for an event, bounded by a deadline. Nothing else in the tests sleeps."""

import time

DEADLINE = 20.0


def until(condition, what, deadline=DEADLINE, interval=0.02):
    """Calls condition until it gives something true, and returns that."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline:g} s: {what() if callable(what) else what}"
        time.sleep(interval)
