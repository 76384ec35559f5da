-- What has begun and has no closing row yet: when the process that carries it is gone, the row is written in its place.
CREATE TABLE open_session (
	session     INTEGER NOT NULL,
	flow        INTEGER NOT NULL,    -- 0: the session itself; else a hash of the destination of a UDP flow in it
	incarnation INTEGER NOT NULL,    -- of the process that carries it
	event       INTEGER NOT NULL,    -- event.id of the last row that tells of it: all that its closing row needs
	PRIMARY KEY (session, flow)
) STRICT, WITHOUT ROWID;
-- Sessions of before that lack their closing row: whoever carried them has ended, since this file is only now opened.
INSERT INTO open_session (session, flow, incarnation, event)
	SELECT session, 0, 0, max(CASE WHEN kind IN (0, 1) THEN id END) FROM event WHERE session IS NOT NULL
	GROUP BY session HAVING max(kind = 0) AND NOT max(kind = 3);
