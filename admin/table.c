#include "config.h"

#include "admin/table.h"

#include <libsmartcols.h>
#include <stdio.h>

#include "admin/format.h"

static void print_table(const json_t *objects, const struct table_column *columns, size_t n)
{
	struct libscols_table *table = scols_new_table();
	char text[1100], buf[FORMAT_TEXT_MAX];
	const json_t *object;
	size_t i;

	if (table == NULL)
		return;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t c = 0; c < n; c++)
		scols_table_new_column(table, columns[c].head, 0.1, columns[c].flags);
	json_array_foreach(objects, i, object)
	{
		struct libscols_line *line = scols_table_new_line(table, NULL);

		for (size_t c = 0; line != NULL && c < n; c++)
			scols_line_set_data(line, c, format_safe(format_member(object, columns[c].member, buf), text, sizeof text));
	}
	scols_print_table(table);
	scols_unref_table(table);
}

void table_list(json_t *objects, const struct table_column *columns, size_t n, bool json)
{
	if (json) {
		json_dumpf(objects, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
	} else {
		print_table(objects, columns, n);
	}
	json_decref(objects);
}
