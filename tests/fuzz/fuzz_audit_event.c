/* Bodies of RECORD: none breaks the readers, both take the same, what they take is written back as it was, and can be shown. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "schema/audit_row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct audit_event e;
	static uint8_t body[32768];
	static uint8_t bytes[2][AUDIT_ROW_BYTES_MAX];
	struct wire_reader r = wire_reader_on(data, size), again = r;
	struct audit_row borrowing, copied;
	struct wire_writer w = wire_writer_on(body, sizeof body);
	char session[AUDIT_SESSION_TEXT_MAX];
	uint64_t incarnation, sequence;

	bool taken = audit_row_get_record(&again, &incarnation, &sequence, &borrowing);

	if (audit_get_record(&r, &incarnation, &sequence, &e) != taken)
		abort();
	if (!taken)
		return 0;
	audit_row_of(&e, &copied);
	size_t n = audit_row_bytes(&borrowing, bytes[0]);

	if (n == 0 || audit_row_bytes(&copied, bytes[1]) != n || memcmp(bytes[0], bytes[1], n) != 0)
		abort();
	audit_put_record(&w, incarnation, sequence, &e);
	if (w.overflow || w.len != size || memcmp(body, data, size) != 0)
		abort();
	if (audit_session_parse(audit_session_text(e.session, session)) != e.session)
		abort();
	return 0;
}
