"""The control socket without gatewayctl: for callers that ask and then do not read, or that hand over what no gatewayctl would."""

import array
import json
import os
import socket

from . import wait


def begin(path, request, fds=()):
    """Sends one request, with descriptors; end() takes the reply from what this gives."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(wait.seconds(60))
    s.connect(path)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    s.sendmsg([json.dumps(request).encode()], rights)
    return s


def ask(path, request, fds=()):
    """Sends one request, with descriptors: (the reply, the descriptor that came with it, or None)."""
    with begin(path, request, fds) as s:
        return end(s)


def end(s):
    text, extra, _, _ = s.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    got = array.array("i")
    for _, _, data in extra:
        got.frombytes(data)
    return json.loads(text), (got[0] if got else None)


def query(path, **filter_):
    """Asks for audit rows: (the reply, the descriptor that rows come from, or None)."""
    return ask(path, {"command": "audit-query", "filter": filter_})


def memory_file(data, seal=True):
    """A memory file with all its seals."""
    import fcntl

    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if seal:
        fcntl.fcntl(fd, 1033, 1 | 2 | 4 | 8)  # F_ADD_SEALS: seal, shrink, grow, write
    return fd
