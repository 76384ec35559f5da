-- Revisions that take effect only when somebody else approves: what was in force when they were proposed, and what became of them.
CREATE TABLE proposal (
	revision INTEGER PRIMARY KEY REFERENCES revision (id),
	base     INTEGER NOT NULL REFERENCES revision (id),
	until    INTEGER NOT NULL,     -- microseconds since the epoch; then it expires
	lasts    INTEGER NOT NULL,     -- to be on trial for so long, in microseconds; 0: for good
	imported INTEGER NOT NULL      -- 1: its text is that of the configured policy file
) STRICT;

-- The last word on each; it waits as long as there is none.
CREATE TABLE verdict (
	revision   INTEGER PRIMARY KEY REFERENCES proposal (revision),
	verdict    TEXT NOT NULL,      -- approved, rejected, withdrawn (by its author), expired
	time       INTEGER NOT NULL,
	author_uid INTEGER NOT NULL,
	author     TEXT NOT NULL,
	comment    TEXT NOT NULL
) STRICT;
