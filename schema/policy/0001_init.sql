-- Every policy that was ever applied.  Rows are added, never changed: what is active is the last row of activation.
CREATE TABLE content (
	id   INTEGER PRIMARY KEY,
	hash BLOB NOT NULL UNIQUE,       -- BLAKE2b-256 of text
	text BLOB NOT NULL
) STRICT;

CREATE TABLE revision (
	id         INTEGER PRIMARY KEY,
	content    INTEGER NOT NULL REFERENCES content (id),
	time       INTEGER NOT NULL,     -- microseconds since the epoch
	author_uid INTEGER NOT NULL,
	author     TEXT NOT NULL,
	source     TEXT NOT NULL,        -- file, rollback, ...
	comment    TEXT NOT NULL,
	checks     TEXT NOT NULL         -- what the checks said when it was applied
) STRICT;

CREATE TABLE activation (
	id       INTEGER PRIMARY KEY,
	revision INTEGER NOT NULL REFERENCES revision (id),
	time     INTEGER NOT NULL,
	uid      INTEGER NOT NULL
) STRICT;

-- Texts of the configured policy file that were taken over, so that an unchanged file is known again.
CREATE TABLE import (
	id       INTEGER PRIMARY KEY,
	revision INTEGER NOT NULL REFERENCES revision (id),
	hash     BLOB NOT NULL,
	time     INTEGER NOT NULL
) STRICT;
