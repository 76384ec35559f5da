"""A SOCKS5 client that says exactly what it is told to, byte by byte (RFC 1928, RFC 1929)."""

import ipaddress
import socket
import struct

from . import wait

NONE, GSSAPI, PASSWORD, NO_METHOD = 0, 1, 2, 0xFF
CONNECT, BIND, UDP = 1, 2, 3
(OK, FAILURE, NOT_ALLOWED, NETWORK_UNREACHABLE, HOST_UNREACHABLE, REFUSED, TTL, COMMAND, ADDRESS_TYPE) = range(9)


def greeting(*methods):
    return bytes([5, len(methods), *methods])


def login(user, password):
    user, password = _bytes(user), _bytes(password)
    return bytes([1, len(user)]) + user + bytes([len(password)]) + password


def address(host):
    """ATYP and DST.ADDR: bytes are sent as a name whatever they are, text that is an address as that address."""
    if isinstance(host, bytes):
        return bytes([3, len(host)]) + host
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return address(host.encode())
    return bytes([1 if ip.version == 4 else 4]) + ip.packed


def request(host, port, command=CONNECT):
    return bytes([5, command, 0]) + address(host) + struct.pack(">H", port)


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()


class Client:
    def __init__(self, server, source=None, timeout=40.0, receive_buffer=None):
        host, port = server
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(wait.seconds(timeout))
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def abort(self):
        """Closes with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, n):
        """Exactly n bytes, or what came before the end."""
        got = b""
        while len(got) < n:
            piece = self._recv(n - len(got))
            if not piece:
                break
            got += piece
        return got

    def receive_all(self):
        got = []
        while True:
            piece = self._recv(1 << 16)
            if not piece:
                return b"".join(got)
            got.append(piece)

    def _recv(self, n):
        try:
            return self.socket.recv(n)
        except ConnectionResetError:
            return b""  # for a test of bytes, a reset is an end

    def silent_for(self, seconds):
        """True if nothing, not even the end, comes for that long."""
        old = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
            return False
        except socket.timeout:
            return True
        finally:
            self.socket.settimeout(old)

    def greet(self, *methods):
        self.send(greeting(*methods))
        answer = self.receive(2)
        assert len(answer) == 2 and answer[0] == 5, answer
        return answer[1]

    def login(self, user, password):
        self.send(login(user, password))
        answer = self.receive(2)
        assert len(answer) == 2 and answer[0] == 1, answer
        return answer[1]

    def reply(self):
        """REP of the reply that comes next, checked in form; None if the connection ends instead."""
        head = self.receive(4)
        if not head:
            return None
        assert len(head) == 4 and head[0] == 5 and head[2] == 0, head
        n = {1: 4, 4: 16}[head[3]]
        rest = self.receive(n + 2)
        assert len(rest) == n + 2, rest
        self.bound = (str(ipaddress.ip_address(rest[:n])), struct.unpack(">H", rest[n:])[0])
        return head[1]

    def request(self, host, port, command=CONNECT):
        self.send(request(host, port, command))
        return self.reply()

    def echo(self, data):
        self.send(data)
        got = self.receive(len(data))
        assert got == data, (len(got), len(data))


def open_session(server, host, port, user="ann", password="ann-pass", **kwargs):
    """A client whose request was answered: .code has REP."""
    c = Client(server, **kwargs)
    if user is None:
        assert c.greet(NONE) == NONE
    else:
        assert c.greet(PASSWORD) == PASSWORD
        assert c.login(user, password) == 0
    c.code = c.request(host, port)
    return c


# ---- SOCKS4 and 4a ------------------------------------------------------------------------------------------------

GRANTED4, REJECTED4 = 90, 91


def request4(host, port, command=CONNECT, user=b""):
    """bytes are sent as a name (4a), text is an IPv4 address."""
    ip, name = (b"\0\0\0\1", host + b"\0") if isinstance(host, bytes) else (ipaddress.IPv4Address(host).packed, b"")
    return struct.pack(">BBH", 4, command, port) + ip + _bytes(user) + b"\0" + name


class Client4(Client):
    def reply(self):
        """CD of the reply that comes next; None if the connection ends instead."""
        got = self.receive(8)
        if not got:
            return None
        assert len(got) == 8 and got[0] == 0, got
        self.bound = (str(ipaddress.IPv4Address(got[4:])), struct.unpack(">H", got[2:4])[0])
        return got[1]

    def request(self, host, port, command=CONNECT, user=b""):
        self.send(request4(host, port, command, user))
        return self.reply()


# ---- UDP ----------------------------------------------------------------------------------------------------------


def datagram(host, port, data, fragment=0):
    return bytes([0, 0, fragment]) + address(host) + struct.pack(">H", port) + data


class Association:
    """A control connection that asked for UDP, and a socket for its datagrams."""

    def __init__(self, server, declared=("0.0.0.0", 0), bind_host=None, user="ann", password="ann-pass"):
        self.control = Client(server)
        if user is None:
            assert self.control.greet(NONE) == NONE
        else:
            assert self.control.greet(PASSWORD) == PASSWORD
            assert self.control.login(user, password) == 0
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(wait.seconds(40))
        self.socket.bind((bind_host or ("::1" if family == socket.AF_INET6 else "127.0.0.1"), 0))
        host, port = declared
        self.code = self.control.request(host, self.socket.getsockname()[1] if port is None else port, UDP)
        self.relay = self.control.bound

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.control.close()
        self.socket.close()

    def send(self, host, port, data, fragment=0):
        self.socket.sendto(datagram(host, port, data, fragment), self.relay)

    def receive(self, timeout=None):
        """((host, port), data) of the next datagram, its header checked."""
        self.socket.settimeout(wait.seconds(40) if timeout is None else timeout)
        got, sender = self.socket.recvfrom(1 << 17)
        assert sender[:2] == self.relay, sender
        assert got[:3] == b"\0\0\0", got[:22]
        n = {1: 4, 4: 16}[got[3]]
        return (str(ipaddress.ip_address(got[4:4 + n])), struct.unpack(">H", got[4 + n:6 + n])[0]), got[6 + n:]

    def silent_for(self, seconds):
        try:
            self.receive(seconds)
            return False
        except socket.timeout:
            return True

    def silent_or_refused(self, seconds):
        """True if nothing comes, or word that nobody listens there."""
        try:
            return self.silent_for(seconds)
        except ConnectionRefusedError:
            return True

    def echo(self, host, port, data):
        """Sends data to an echo server and checks that it comes back; gives the address that it came from."""
        self.send(host, port, data)
        sender, got = self.receive()
        assert got == data, (len(got), len(data))
        return sender
