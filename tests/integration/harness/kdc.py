"""A Kerberos realm of its own: database, KDC and keytabs in a directory, on free ports of the loopback. And a client of RFC 1961."""

import os
import shutil
import socket
import struct
import subprocess
import tempfile

from . import ports, socks, wait

REALM = "GATEWAY.TEST"
NONE, INTEGRITY, CONFIDENTIALITY, SELECTIVE = range(4)
TOKEN, PROTECTION, DATA, ABORT = 1, 2, 3, 0xFF


def frame(token, kind=DATA):
    return struct.pack(">BBH", 1, kind, len(token)) + token


def available():
    try:
        import gssapi  # noqa: F401
    except ImportError:
        return False
    return all(shutil.which(p, path="/usr/sbin:/usr/bin") for p in ("krb5kdc", "kdb5_util", "kadmin.local", "kinit"))


def _counted(data, at):
    """A counted piece of a credential cache, and where the next begins."""
    length = struct.unpack_from(">I", data, at)[0]
    return data[at + 4:at + 4 + length], at + 4 + length


def _principal(data, at):
    _, components = struct.unpack_from(">II", data, at)
    at += 8
    for _ in range(components + 1):
        _, at = _counted(data, at)
    return at


def ticket_keys(environment):
    """The session keys in a client's credential cache (file format, version 4)."""
    with open(environment["KRB5CCNAME"].split(":", 1)[1], "rb") as f:
        data = f.read()
    assert data[:2] == b"\5\4", data[:2]
    at = _principal(data, 4 + struct.unpack_from(">H", data, 2)[0])
    keys = []
    while at < len(data):
        at = _principal(data, _principal(data, at))
        key, at = _counted(data, at + 2)
        at += 4 * 4 + 1 + 4  # times, is_skey, flags
        for _ in range(2):  # addresses, authorization data
            n = struct.unpack_from(">I", data, at)[0]
            at += 4
            for _ in range(n):
                _, at = _counted(data, at + 2)
        for _ in range(2):  # tickets
            _, at = _counted(data, at)
        if any(key):
            keys.append(key)
    return keys


def keytab_keys(path):
    """The keys of a keytab (file format, version 2)."""
    with open(path, "rb") as f:
        data = f.read()
    at, keys = 2, []
    while at + 4 <= len(data):
        length = struct.unpack_from(">i", data, at)[0]
        end = at + 4 + abs(length)
        if length > 0:
            components = struct.unpack_from(">H", data, at + 4)[0]
            where = at + 6
            for _ in range(components + 1):
                where += 2 + struct.unpack_from(">H", data, where)[0]
            where += 4 + 4 + 1 + 2  # name type, time, version, kind of the key
            n = struct.unpack_from(">H", data, where)[0]
            keys.append(data[where + 2:where + 2 + n])
        at = end
    return keys


class Realm:
    """users: {principal: password}. The gateway's keytab is .keytab, its service socks@localhost."""

    def __init__(self, users, rules=(), clockskew=300):
        self.dir = tempfile.mkdtemp(prefix="gwkdc", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.port = ports.free()
        self.conf, self.keytab = self.path("krb5.conf"), self.path("gateway.keytab")
        local = "".join(f"        auth_to_local = {r}\n" for r in rules)
        self._write("krb5.conf", f"""\
[libdefaults]
    default_realm = {REALM}
    dns_lookup_realm = false
    dns_lookup_kdc = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
    clockskew = {clockskew}
[realms]
    {REALM} = {{
        kdc = 127.0.0.1:{self.port}
{local}    }}
""")
        os.chmod(self.conf, 0o644)
        self._write("kdc.conf", f"""\
[kdcdefaults]
    kdc_listen = 127.0.0.1:{self.port}
    kdc_tcp_listen = 127.0.0.1:{self.port}
[realms]
    {REALM} = {{
        database_name = {self.path("principal")}
        key_stash_file = {self.path("stash")}
        acl_file = {self.path("acl")}
        max_life = 10h
    }}
""")
        self.environment = {**os.environ, "KRB5_CONFIG": self.conf, "KRB5_KDC_PROFILE": self.path("kdc.conf")}
        self._run("/usr/sbin/kdb5_util", "-r", REALM, "-P", "master", "create", "-s")
        self._kadmin(*(f"addprinc -pw {password} {name}" for name, password in users.items()),
                     "addprinc -randkey socks/localhost", f"ktadd -k {self.keytab} socks/localhost")
        os.chmod(self.keytab, 0o600)
        self._log = open(self.path("log"), "wb")
        self._process = subprocess.Popen(["/usr/sbin/krb5kdc", "-n", "-r", REALM, "-P", self.path("pid")], env=self.environment,
                                         stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        wait.until(self._answers, "the KDC answers")
        self._caches = 0

    def path(self, name):
        return os.path.join(self.dir, name)

    def _write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def _run(self, *command, **kwargs):
        return subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=wait.seconds(60), **kwargs)

    def _kadmin(self, *commands):
        self._run("/usr/sbin/kadmin.local", "-r", REALM, input="".join(c + "\n" for c in commands).encode())

    def _answers(self):
        assert self._process.poll() is None, open(self.path("log"), "rb").read()
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def change_keys(self):
        """New keys for the gateway's service, and only those in its keytab."""
        os.unlink(self.keytab)
        self._kadmin(f"ktadd -k {self.keytab} socks/localhost")

    def kinit(self, user, password, *options):
        """The environment of a client that has a ticket."""
        self._caches += 1
        environment = {**self.environment, "KRB5CCNAME": f"FILE:{self.path(f'cc{self._caches}')}"}
        subprocess.run(["kinit", *options, user], input=(password + "\n").encode(), env=environment, check=True, stdout=subprocess.PIPE,
                       timeout=wait.seconds(60))
        return environment

    def admin(self, *commands):
        """Commands of kadmin.local."""
        self._kadmin(*commands)

    def stop(self):
        """Nobody answers any more."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(wait.seconds(30))

    def close(self):
        self.stop()
        self._log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Client(socks.Client):
    """A client of the GSSAPI method. environment: what kinit gave."""

    def __init__(self, server, environment, service="socks@localhost", flags=None, **kwargs):
        import gssapi

        super().__init__(server, **kwargs)
        self._gssapi = gssapi
        self.level = NONE
        self._plain = b""
        old = {k: os.environ.get(k) for k in ("KRB5_CONFIG", "KRB5CCNAME")}
        os.environ.update({k: environment[k] for k in old if k in environment})
        try:
            name = gssapi.Name(service, gssapi.NameType.hostbased_service)
            f = flags if flags is not None else (
                gssapi.RequirementFlag.mutual_authentication | gssapi.RequirementFlag.replay_detection |
                gssapi.RequirementFlag.out_of_sequence_detection | gssapi.RequirementFlag.integrity |
                gssapi.RequirementFlag.confidentiality)
            self.context = gssapi.SecurityContext(name=name, usage="initiate", flags=f, mech=gssapi.MechType.kerberos)
            self.first = self.context.step()
        finally:
            for k, v in old.items():
                if v is None:
                    os.environ.pop(k, None)
                else:
                    os.environ[k] = v

    # ---- messages -------------------------------------------------------------------------------------------------

    def send_message(self, kind, token):
        self.send(frame(token, kind))

    def receive_message(self):
        """(kind, token); (ABORT, b"") for an abort, None for the end."""
        head = self.receive(2)
        if len(head) < 2:
            return None
        assert head[0] == 1, head
        if head[1] == ABORT:
            return ABORT, b""
        length = struct.unpack(">H", self.receive(2))[0]
        token = self.receive(length)
        assert len(token) == length
        return head[1], token

    def wrap(self, data):
        return self.context.wrap(data, self.level == CONFIDENTIALITY).message

    # ---- the handshake -----------------------------------------------------------------------------------------------

    def establish(self):
        """True once the context stands; False if it was aborted."""
        self.send_message(TOKEN, self.first)
        while not self.context.complete:
            got = self.receive_message()
            if got is None or got[0] == ABORT:
                return False
            assert got[0] == TOKEN, got
            token = self.context.step(got[1])
            if token:
                self.send_message(TOKEN, token)
        return True

    def protect(self, level, nec=False):
        """Asks for a protection: what was agreed on, or None for an abort."""
        octet = bytes([level])
        self.send_message(PROTECTION, octet if nec else self.context.wrap(octet, False).message)
        got = self.receive_message()
        if got is None or got[0] == ABORT:
            return None
        assert got[0] == PROTECTION, got
        answer = got[1] if nec else self.context.unwrap(got[1]).message
        assert len(answer) == 1
        self.level = answer[0]
        return self.level

    def login(self, level):
        assert self.greet(socks.GSSAPI) == socks.GSSAPI
        assert self.establish()
        return self.protect(level)

    # ---- afterwards, as if there were no protection --------------------------------------------------------------------

    def send_plain(self, data):
        """data, encapsulated as agreed."""
        if self.level == NONE:
            self.send(data)
        for i in range(0, len(data), 30000) if self.level != NONE else ():
            self.send_message(DATA, self.wrap(data[i:i + 30000]))

    def receive_plain(self, n):
        if self.level == NONE:
            return self.receive(n)
        while len(self._plain) < n:
            got = self.receive_message()
            if got is None:
                break
            assert got[0] == DATA, got
            opened = self.context.unwrap(got[1])
            assert opened.encrypted == (self.level == CONFIDENTIALITY)
            self._plain += opened.message
        data, self._plain = self._plain[:n], self._plain[n:]
        return data

    def request(self, host, port, command=socks.CONNECT):
        self.send_plain(socks.request(host, port, command))
        head = self.receive_plain(4)
        if not head:
            return None
        n = {1: 4, 4: 16}[head[3]]
        rest = self.receive_plain(n + 2)
        self.bound = (socket.inet_ntop({4: socket.AF_INET, 16: socket.AF_INET6}[n], rest[:n]), struct.unpack(">H", rest[n:])[0])
        return head[1]

    def echo(self, data):
        self.send_plain(data)
        got = self.receive_plain(len(data))
        assert got == data, (len(got), len(data))
