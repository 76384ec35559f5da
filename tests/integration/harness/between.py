"""Stands between gatewayctl and the control socket, and keeps what it is told to: the test acts while gatewayctl waits."""

import contextlib
import json
import os
import socket
import threading

from . import wait


class Between:
    """Requests of held commands are taken and go no further; kept is set when there is one.  Others are handed on, answers back."""

    def __init__(self, path, control, held):
        self.held, self.kept, self._control = held, threading.Event(), control
        self._closed, self._waiting = False, []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(wait.seconds(60))
        for s in self._waiting:
            s.close()
        self._listener.close()

    def _run(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(wait.seconds(60))
            with contextlib.suppress(OSError):  # whoever was interrupted is gone
                self._serve(client)

    def _serve(self, client):
        request, fds, _, _ = socket.recv_fds(client, 1 << 17, 4)
        if request and json.loads(request)["command"] == self.held:
            self._waiting.append(client)
            self.kept.set()
        elif request:
            with client, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
                control.settimeout(wait.seconds(60))
                control.connect(self._control)
                socket.send_fds(control, [request], fds)
                answer, got, _, _ = socket.recv_fds(control, 1 << 17, 4)
                socket.send_fds(client, [answer], got)
                fds += got
        else:
            client.close()
        for fd in fds:
            os.close(fd)
