"""Builds a country database for tests with Debian's MaxMind::DB::Writer."""

import os
import subprocess

_WRITER = r"""
use strict;
use MaxMind::DB::Writer::Tree;
my ($file, @networks) = @ARGV;
my %types = (country => 'map', iso_code => 'utf8_string');
my $tree = MaxMind::DB::Writer::Tree->new(
    ip_version => 6, record_size => 24, database_type => 'Test-Country', languages => ['en'],
    description => { en => 'Countries for tests' }, map_key_type_callback => sub { $types{$_[0]} },
    alias_ipv6_to_ipv4 => 0, remove_reserved_networks => 0,
);
while (my ($network, $country) = splice @networks, 0, 2) {
    $tree->insert_network($network, { country => { iso_code => $country } });
}
open my $out, '>:raw', $file or die $!;
$tree->write_tree($out);
close $out or die $!;
"""


def build(path, networks):
    arguments = [item for pair in networks.items() for item in pair]
    subprocess.run(["/usr/bin/perl", "-e", _WRITER, os.fspath(path), *arguments], check=True, timeout=60)
    return os.fspath(path)
