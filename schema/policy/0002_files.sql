-- The files that a policy names (what it includes, the lists of its sets), as they were when it was applied.
ALTER TABLE revision ADD COLUMN name TEXT NOT NULL DEFAULT '';  -- of the policy's own text, in messages

CREATE TABLE revision_file (
	revision INTEGER NOT NULL REFERENCES revision (id),
	position INTEGER NOT NULL,      -- 1 is the first
	name     TEXT NOT NULL,         -- as the policy reaches it
	content  INTEGER NOT NULL REFERENCES content (id),
	PRIMARY KEY (revision, position)
) STRICT, WITHOUT ROWID;
