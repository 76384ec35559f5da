"""Builds databases of countries and of autonomous systems for tests, with Debian's MaxMind::DB::Writer."""

import os
import subprocess

from . import wait

_WRITER = r"""
use strict;
use MaxMind::DB::Writer::Tree;
my ($kind, $file, @networks) = @ARGV;
my %types = (country => 'map', iso_code => 'utf8_string', autonomous_system_number => 'uint32');
my $tree = MaxMind::DB::Writer::Tree->new(
    ip_version => 6, record_size => 24, database_type => 'Test-Country', languages => ['en'],
    description => { en => 'Countries for tests' }, map_key_type_callback => sub { $types{$_[0]} },
    alias_ipv6_to_ipv4 => 0, remove_reserved_networks => 0,
);
while (my ($network, $value) = splice @networks, 0, 2) {
    $tree->insert_network($network, $kind eq 'asn' ? { autonomous_system_number => $value } : { country => { iso_code => $value } });
}
open my $out, '>:raw', $file or die $!;
$tree->write_tree($out);
close $out or die $!;
"""


def _write(kind, path, networks):
    arguments = [str(item) for pair in networks.items() for item in pair]
    subprocess.run(["/usr/bin/perl", "-e", _WRITER, kind, os.fspath(path), *arguments], check=True, timeout=wait.seconds(60))
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
