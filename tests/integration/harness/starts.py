"""Starts that must not work."""


def refused(g, *words):
    """gatewayd -c CONF fails: the only error line has these words."""
    code, lines = g.run("-c", g.conf)
    assert code > 0, lines
    lines = [line for line in lines if " info: " not in line and " debug: " not in line and line.strip()]
    # The leak checker of a process that is killed while it looks around: not a word of ours.
    lines = [line for line in lines if "Unable to get registers from thread" not in line]
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0], (word, lines[0])
    return lines[0]
