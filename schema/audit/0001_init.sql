-- The audit.  One row an event; nothing here is ever changed after it was committed.
-- Absent values are NULL: they cost one byte.  Times are microseconds since the epoch.
CREATE TABLE event (
	id          INTEGER PRIMARY KEY, -- order of recording, without gaps
	time        INTEGER NOT NULL,
	kind        INTEGER NOT NULL,    -- enum audit_kind
	session     INTEGER,             -- 64 bits, as a signed number
	revision    INTEGER,             -- of the policy that decided
	client      BLOB,                -- 4 or 16 bytes, network order
	client_port INTEGER,
	address     BLOB,
	port        INTEGER,
	bytes_up    INTEGER,
	bytes_down  INTEGER,
	duration    INTEGER,
	listener    TEXT,
	user        TEXT,
	method      TEXT,
	command     TEXT,
	name        TEXT,
	rule        TEXT,
	reason      TEXT,
	detail      TEXT
) STRICT;
CREATE INDEX event_time ON event (time);
CREATE INDEX event_session ON event (session) WHERE session IS NOT NULL;

-- The highest durable sequence of each process life that sent records: what is resent after a crash is known again.
CREATE TABLE sender (
	incarnation INTEGER PRIMARY KEY,
	last        INTEGER NOT NULL,
	seen        INTEGER NOT NULL     -- event.id at its last commit: the least recent are forgotten first
) STRICT;
