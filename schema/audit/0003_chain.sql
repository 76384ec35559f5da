-- The chain: each commit, seal and border of a segment is an entry, authenticated over the one before it.  audit_chain.h has
-- the layouts.  Entries are numbered over all segments, like events, without gaps.
CREATE TABLE chain (
	id    INTEGER PRIMARY KEY,
	kind  INTEGER NOT NULL,    -- enum audit_entry_kind
	epoch INTEGER NOT NULL,    -- of the key
	time  INTEGER NOT NULL,
	first INTEGER NOT NULL,    -- event.id of the first row that it covers, or of the next that will be
	count INTEGER NOT NULL,    -- rows
	body  BLOB NOT NULL,
	mac   BLOB NOT NULL
) STRICT;
