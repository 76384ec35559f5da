"""./bootstrap run as a person meets it: its files, its lines, a second start."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from harness import ports, wait
from harness.gateway import BUILD, ROOT

pytestmark = [pytest.mark.skipif(os.path.realpath(BUILD) != os.path.join(ROOT, "build"), reason="bootstrap builds in build/ of the checkout"), pytest.mark.long]


class Checkout:
    """The script in a directory that has the build of this checkout: run/ of the real one belongs to its owner."""

    def __init__(self, path):
        self.path = path
        os.makedirs(path)
        for name in ("bootstrap", "packaging"):
            os.symlink(os.path.join(ROOT, name), os.path.join(path, name))
        os.unlink(os.path.join(path, "bootstrap"))
        shutil.copy(os.path.join(ROOT, "bootstrap"), path)
        for name in ("configure.ac", "Makefile.in", "configure"):  # in order of their time
            open(os.path.join(path, name), "w", encoding="utf-8").close()
        os.makedirs(os.path.join(path, "build"))
        for name in ("gatewayd", "admin"):
            os.symlink(os.path.join(BUILD, name), os.path.join(path, "build", name))
        with open(os.path.join(path, "build", "Makefile"), "w", encoding="utf-8") as f:
            f.write("all:\n\t@true\n")

    def start(self, port):
        self.log = os.path.join(self.path, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["./bootstrap", "run", "--port", str(port)], cwd=self.path, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        wait.until(lambda: self._ready(), lambda: self.text(), 60)
        return self.text()

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def _ready(self):
        assert self.process.poll() is None, self.text()
        return "gatewayd is ready" in self.text()

    def stop(self):
        """What Ctrl-C does: SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(wait.seconds(40))


@pytest.fixture
def checkout():
    import tempfile

    base = tempfile.mkdtemp(prefix="gwboot", dir="/tmp")
    c = Checkout(os.path.join(base, "checkout"))
    yield c
    if getattr(c, "process", None) and c.process.poll() is None:
        c.stop()
    shutil.rmtree(base, ignore_errors=True)


def test_run_and_run_again(checkout):
    port = ports.free()
    text = checkout.start(port)
    denied = re.search(r"^\s+denied:\s+(curl .*)$", text, re.M)[1]
    status = re.search(r"^\s+status:\s+(.*)$", text, re.M)[1]
    audit = re.search(r"^\s+audit:\s+(.*)$", text, re.M)[1]
    password = re.search(r"demo:(\w+)@", denied)[1]
    got = subprocess.run(denied.replace("curl ", "curl -sS --noproxy '' ", 1), shell=True, stderr=subprocess.PIPE, timeout=wait.seconds(60))
    assert got.returncode == 97 and b"(2)" in got.stderr, got.stderr
    assert subprocess.run(status, shell=True, stdout=subprocess.PIPE, timeout=wait.seconds(60)).returncode == 0
    assert b"blocked" in subprocess.run(audit, shell=True, stdout=subprocess.PIPE, timeout=wait.seconds(60)).stdout
    assert os.stat(os.path.join(checkout.path, "run")).st_mode & 0o777 == 0o700
    assert checkout.stop() == 0

    text = checkout.start(port)
    assert f"demo:{password}@" in text
    assert b"blocked" in subprocess.run(audit, shell=True, stdout=subprocess.PIPE, timeout=wait.seconds(60)).stdout
    assert checkout.stop() == 0


def test_port_that_is_taken(checkout):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as s:
        done = subprocess.run(["./bootstrap", "run", "--port", str(s.getsockname()[1])], cwd=checkout.path, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=wait.seconds(60))
    assert done.returncode != 0
    assert b"another program" in done.stdout or b"in use" in done.stdout


def test_demo(checkout):
    done = subprocess.run(["./bootstrap", "run", "--demo"], cwd=checkout.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=wait.seconds(120))
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert "login-failed" in text and "demo-web" in text and "no-trackers" in text
    assert os.listdir(os.path.join(checkout.path, "run")) == []


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run", "--port"], ["run", "--port", "0"], ["run", "--port", "70000"], ["run", "x"]])
def test_wrong_arguments(checkout, arguments):
    done = subprocess.run(["./bootstrap", *arguments], cwd=checkout.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=wait.seconds(60))
    assert done.returncode == 1 and done.stdout


def test_missing_packages_without_root_are_named(checkout):
    """An ordinary user without sudo gets the one line that installs what is missing."""
    fake = os.path.join(checkout.path, "bin")
    os.makedirs(fake)
    for name, text in (("dpkg-query", 'case "$*" in *libevent-dev*) exit 1 ;; *) echo installed ;; esac'), ("id", "echo 1000"), ("sudo", "exit 1"),
                       ("apt-get", "echo apt-get was run; exit 9")):
        with open(os.path.join(fake, name), "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\n{text}\n")
        os.chmod(os.path.join(fake, name), 0o755)
    done = subprocess.run(["./bootstrap"], cwd=checkout.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=wait.seconds(60), env={**os.environ, "PATH": fake + ":" + os.environ["PATH"]})
    text = done.stdout.decode()
    assert done.returncode == 1, text
    assert re.search(r"apt-get install -y --no-install-recommends libevent-dev$", text, re.M), text
    assert "apt-get was run" not in text
