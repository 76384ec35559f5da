"""Resolvers: dnsmasq as a real one, and one that answers whatever a test wants."""

import ipaddress
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading

from . import ports, wait

A, CNAME, AAAA = 1, 5, 28


class Dnsmasq:
    """dnsmasq with the given records: Dnsmasq("--host-record=a.test,127.0.0.1")."""

    def __init__(self, *records):
        self.port = ports.free()
        self._dir = tempfile.mkdtemp(prefix="gwdns", dir="/tmp")
        self._log = os.path.join(self._dir, "log")
        program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:" + os.environ.get("PATH", ""))
        arguments = [
            program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll", "--pid-file=",
            f"--port={self.port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--log-queries",
            f"--log-facility={self._log}", *records,
        ]
        if os.geteuid() == 0:
            arguments += ["--user=root", "--group=root"]
        self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait.until(self._started, "dnsmasq answers")

    def _started(self):
        assert self._process.poll() is None, self._process.stderr.read()
        return re.search(r"started, ", self.log())

    def log(self):
        try:
            with open(self._log, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def queries(self):
        """Names asked for, one per query."""
        return re.findall(r"query\[\w+\] (\S+) from", self.log())

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def close(self):
        self._process.terminate()
        self._process.wait(wait.seconds(30))
        self._process.stderr.close()
        shutil.rmtree(self._dir, ignore_errors=True)


def name_bytes(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".") if label) + b"\0"


def record(name, kind, value, ttl=0):
    if kind == A:
        data = ipaddress.IPv4Address(value).packed
    elif kind == AAAA:
        data = ipaddress.IPv6Address(value).packed
    elif kind == CNAME:
        data = name_bytes(value)
    else:
        data = value
    return name_bytes(name) + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


class Scripted:
    """A resolver over UDP and TCP. answer(name, kind, nth) gives a list of record(...), an RCODE as an int,
    bytes to send as they are ("ID" is put before them), or None for no answer."""

    def __init__(self, answer, host="127.0.0.1", port=None):
        self._answer = answer
        self.asked = []
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.host, self.port = host, port or ports.free()
        self._udp.bind((self.host, self.port))
        self._tcp = socket.create_server((self.host, self.port))
        self._closed = False
        for loop in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=loop, daemon=True).start()

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def names(self):
        return [name for name, _ in self.asked]

    def _reply(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
            at += 1 + query[at]
        name = ".".join(labels)
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        self.asked.append((name, kind))
        given = self._answer(name, kind, self.asked.count((name, kind)))
        if given is None:
            return None
        if isinstance(given, bytes):
            return query[:2] + given
        code, records = (given, []) if isinstance(given, int) else (0, given)
        return query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0) + query[12:at + 5] + b"".join(records)

    def _serve_udp(self):
        while True:
            try:
                query, peer = self._udp.recvfrom(4096)
            except OSError:
                return
            if self._closed:
                return
            try:
                reply = self._reply(query)
            except IndexError:
                continue
            if reply is not None:
                self._udp.sendto(reply, peer)

    def _serve_tcp(self):
        while True:
            try:
                s, _ = self._tcp.accept()
            except OSError:
                return
            with s:
                s.settimeout(wait.seconds(30))
                try:
                    length = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))[0]
                    reply = self._reply(s.recv(length, socket.MSG_WAITALL))
                    if reply is not None:
                        s.sendall(struct.pack(">H", len(reply)) + reply)
                except (OSError, struct.error, IndexError):
                    pass

    def close(self):
        self._closed = True
        for s in (self._udp, self._tcp):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"end", (self.host, self.port))
        self._udp.close()
        self._tcp.close()
