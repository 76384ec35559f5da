"""The control socket without gatewayctl: for callers that ask and then do not read."""

import array
import json
import socket


def query(path, **filter_):
    """Asks for audit rows: (the reply, the descriptor that rows come from, or None)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(30)
        s.connect(path)
        s.send(json.dumps({"command": "audit-query", "filter": filter_}).encode())
        text, extra, _, _ = s.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    fds = array.array("i")
    for _, _, data in extra:
        fds.frombytes(data)
    return json.loads(text), (fds[0] if fds else None)
