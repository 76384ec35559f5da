"""Builds databases of countries and of autonomous systems for tests, with Debian's MaxMind::DB::Writer."""

import atexit
import os
import subprocess

# It takes a second to load: one process builds all of them.
_WRITER = r"""
use strict;
use MaxMind::DB::Writer::Tree;
my %types = (country => 'map', iso_code => 'utf8_string', autonomous_system_number => 'uint32');
$| = 1;
while (my $line = <STDIN>) {
    chomp $line;
    my ($kind, $file, @networks) = split /\t/, $line;
    eval {
        my $tree = MaxMind::DB::Writer::Tree->new(
            ip_version => 6, record_size => 24, database_type => 'Test-Country', languages => ['en'],
            description => { en => 'Countries for tests' }, map_key_type_callback => sub { $types{$_[0]} },
            alias_ipv6_to_ipv4 => 0, remove_reserved_networks => 0,
        );
        while (my ($network, $value) = splice @networks, 0, 2) {
            $tree->insert_network($network, $kind eq 'asn' ? { autonomous_system_number => $value } : { country => { iso_code => $value } });
        }
        open my $out, '>:raw', $file or die "$file: $!";
        $tree->write_tree($out);
        close $out or die "$file: $!";
        print "built\n";
        1;
    } or print "failed: " . ($@ =~ s/\n/ /gr) . "\n";
}
"""
_writer = None


def _end():
    _writer.stdin.close()
    _writer.wait()


def _write(kind, path, networks):
    global _writer
    if _writer is None:
        _writer = subprocess.Popen(["/usr/bin/perl", "-e", _WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        atexit.register(_end)
    words = [kind, os.path.abspath(path), *(str(item) for pair in networks.items() for item in pair)]
    assert not any(c in word for c in "\t\n" for word in words), words
    _writer.stdin.write("\t".join(words) + "\n")
    _writer.stdin.flush()
    said = _writer.stdout.readline()
    assert said == "built\n", said or "the writer of databases has ended"
    return os.fspath(path)


def build(path, networks):
    """{prefix: country}"""
    return _write("country", path, networks)


def build_asn(path, networks):
    """{prefix: number}"""
    return _write("asn", path, networks)


def replace(path, make, networks):
    """As such databases are updated: made aside, and renamed over the old one."""
    make(path + ".new", networks)
    os.rename(path + ".new", path)
