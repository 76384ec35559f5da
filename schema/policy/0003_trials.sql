-- Revisions that were put into force on trial: the one before returns, unless somebody has confirmed them by then.
CREATE TABLE trial (
	revision INTEGER PRIMARY KEY REFERENCES revision (id),
	previous INTEGER NOT NULL REFERENCES revision (id),  -- the last that was not on trial
	until    INTEGER NOT NULL,     -- microseconds since the epoch
	lasts    INTEGER NOT NULL      -- microseconds
) STRICT;

CREATE TABLE confirmation (
	revision   INTEGER PRIMARY KEY REFERENCES trial (revision),
	time       INTEGER NOT NULL,
	author_uid INTEGER NOT NULL,
	author     TEXT NOT NULL
) STRICT;
