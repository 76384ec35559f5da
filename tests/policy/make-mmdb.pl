#!/usr/bin/perl
# make-mmdb.pl FILE VERSION: a small country database, IP version 4 or 6, as the tests of the country table expect it.
use strict;
use warnings;
use MaxMind::DB::Writer::Tree;

my ($file, $version) = @ARGV;
my %types = (country => 'map', registered_country => 'map', iso_code => 'utf8_string', country_code => 'utf8_string');
my $tree = MaxMind::DB::Writer::Tree->new(
    ip_version => $version,
    record_size => 24,
    database_type => 'Test-Country',
    languages => ['en'],
    description => { en => 'countries for tests' },
    remove_reserved_networks => 0,
    map_key_type_callback => sub { $types{ $_[0] } },
    ($version == 6 ? (alias_ipv6_to_ipv4 => 1) : ()),
);
my @networks = (
    ['192.0.2.0/25', { country => { iso_code => 'DE' } }],
    ['192.0.2.128/25', { country => { iso_code => 'FR' } }],
    ['203.0.113.0/24', { country => { iso_code => 'KP' } }],
    ['203.0.113.64/26', { registered_country => { iso_code => 'CH' } }],
    ['198.51.100.7/32', { country_code => 'US' }],
    ['198.51.100.8/32', { country => { iso_code => 'toolong' } }],
    ['8.0.0.0/8', { country => { iso_code => 'US' } }],
    ['255.255.255.255/32', { country => { iso_code => 'ZZ' } }],
);
push @networks, (
    ['2001:db8::/32', { country => { iso_code => 'NL' } }],
    ['2001:db8:1::/48', { country => { iso_code => 'BE' } }],
    ['2606:4700::/32', { country => { iso_code => 'US' } }],
    ['ffff::/16', { country => { iso_code => 'XX' } }],
) if $version == 6;
$tree->insert_network(@$_) for @networks;
open my $out, '>:raw', $file or die "$file: $!\n";
$tree->write_tree($out);
close $out or die "$file: $!\n";
