/* Bodies of RECORD: none breaks the reader, what it takes is written back as it was, and can be shown. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "schema/audit_event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct audit_event e;
	static uint8_t body[32768];
	struct wire_reader r = wire_reader_on(data, size);
	struct wire_writer w = wire_writer_on(body, sizeof body);
	char session[AUDIT_SESSION_TEXT_MAX];
	uint64_t incarnation, sequence;

	if (!audit_get_record(&r, &incarnation, &sequence, &e))
		return 0;
	audit_put_record(&w, incarnation, sequence, &e);
	if (w.overflow || w.len != size || memcmp(body, data, size) != 0)
		abort();
	if (audit_session_parse(audit_session_text(e.session, session)) != e.session)
		abort();
	return 0;
}
