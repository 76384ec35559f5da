"""Other users of the host: processes with ids of their own, in groups that every Debian has."""

import grp
import json
import os
import subprocess
import sys

from . import wait

# One uid each, that nobody else has; what counts is what the kernel tells of them.
UIDS = {"viewer": 61001, "auditor": 61002, "operator": 61003, "administrator": 61004, "stranger": 61005, "both": 61006}
GROUPS = {"viewer": "games", "auditor": "news", "operator": "uucp", "administrator": "proxy"}
OPTIONS = {"viewer_group": GROUPS["viewer"], "auditor_group": GROUPS["auditor"], "operator_group": GROUPS["operator"],
           "control_group": GROUPS["administrator"]}

_ASK = """
import json, socket, sys
path, requests = sys.argv[1], json.load(sys.stdin)
replies = []
for r in requests:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(100)
        s.connect(path)
        try:
            s.send(json.dumps(r).encode())
        except BrokenPipeError:
            pass
        text, fds, _, _ = socket.recv_fds(s, 1 << 16, 1)
        replies.append(json.loads(text))
json.dump(replies, sys.stdout)
"""


def identity(who):
    """Keyword arguments for subprocess: in the role's group by a supplementary group only."""
    groups = {"stranger": [], "both": [GROUPS["auditor"], GROUPS["operator"]]}.get(who, [GROUPS.get(who)])
    return {"user": UIDS[who], "group": UIDS[who], "extra_groups": [grp.getgrnam(g).gr_gid for g in groups]}


def let_in(g):
    """Everybody may reach the gateway's socket, as far as directories are concerned."""
    os.chmod(g.dir, 0o711)


def try_to_ask(g, who, request):
    """The reply, or None where whoever was to give it has ended."""
    try:
        return ask(g, who, [request])[0]
    except subprocess.CalledProcessError:
        return None


def ask(g, who, requests):
    """The replies to all these requests, from one process of that user."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _ASK, g.socket], input=json.dumps(requests).encode(), stdout=subprocess.PIPE, cwd="/", timeout=wait.seconds(120),
        check=True, **identity(who),
    )
    return json.loads(done.stdout)
