#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/image.h"
#include "policy/value.h"
#include "tests/unit/policy_fixture.h"

/* A little of everything that an image can hold. */
static const char everything[] =
	"tz Europe/Berlin\nanswers all\nnat64-prefix 2001:db8:64::/96\n"
	"set nets cidr { 10.0.0.0/8 192.0.2.1 2001:db8::/32 }\nset names domain { .example.com *.example.org a.test }\n"
	"window office tz America/New_York { mon-fri 08:00-18:00 except 2026-12-24 }\n"
	"rule a deny to domain @names log alert owner o ticket t comment c\n"
	"rule b allow group hr eng user ann client @nets to regex \"a.*\" \"b.*\" port 1-5 22 during office\n"
	"rule c monitor allow listener main claimed-user bob method password command connect udp by name to country DE "
	"FR unknown\n"
	"rule d allow to cidr @nets internal source 192.0.2.9 from 2026-01-01 until 2026-12-31\n"
	"rule e allow not to country KP\n";

/* Decides a few requests; whatever the image says, nothing may go wrong. */
static void use(const uint8_t *data, size_t len)
{
	static const char *const names[] = {"www.example.com", "a.test", "abc"};
	static const char *const addresses[] = {"10.0.0.1", "192.0.2.1", "2001:db8::1", "64:ff9b::a00:1"};
	static const char *const groups[] = {"hr"};
	struct err why;
	struct policy_image *image = policy_image_open(data, len, &why);

	if (image == NULL)
		return;
	struct policy_context ctx = {.image = image, .now = fixture_time(2026, 11, 20, 10, 0)};
	struct policy_decision d;
	char text[256];

	for (size_t i = 0; i < 12; i++) {
		struct name name = fixture_name(names[i % 3]);
		struct addr address = fixture_addr(addresses[i / 3]);
		struct policy_request r = {.client = address,
					   .listener = "main",
					   .user = "ann",
					   .groups = groups,
					   .ngroups = 1,
					   .method = POLICY_METHOD_PASSWORD,
					   .command = POLICY_CONNECT,
					   .name = &name,
					   .port = 22};

		policy_decide_name(&ctx, &r, &d);
		policy_decide_answers(&ctx, &r, &address, 1, &name, 1, NULL, &d);
		policy_decision_text(image, &d, text, sizeof text);
		free(policy_explain(&ctx, &r, &address, 1, &name, 1, true, &d));
	}
	for (size_t i = 0; i < policy_group_count(image); i++)
		assert_non_null(policy_group_name(image, i));
	policy_image_close(&image);
}

static void test_a_compiled_image_is_sound(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_open(&f, everything);
	assert_int_equal(policy_rule_count(f.image), 5);
	use(f.data, f.len);
	fixture_close(&f);
}

static void test_compiling_twice_gives_the_same_bytes(void **unused)
{
	struct fixture a, b;

	(void)unused;
	fixture_open(&a, everything);
	fixture_open(&b, everything);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	fixture_close(&a);
	fixture_close(&b);
}

static void test_every_truncation_is_refused(void **unused)
{
	struct fixture f;
	struct err why;

	(void)unused;
	fixture_open(&f, everything);
	for (size_t n = 0; n < f.len; n++) {
		uint8_t *cut = malloc(n > 0 ? n : 1);

		memcpy(cut, f.data, n);
		assert_int_equal(policy_image_verify(cut, n, &why), -1);
		assert_null(policy_image_open(cut, n, &why));
		free(cut);
	}
	fixture_close(&f);
}

static void test_every_changed_byte_is_refused(void **unused)
{
	struct fixture f;
	struct err why;

	(void)unused;
	fixture_open(&f, everything);
	for (size_t n = 0; n < f.len; n++) {
		f.data[n] ^= 0x41;
		assert_int_equal(policy_image_verify(f.data, f.len, &why), -1);
		f.data[n] ^= 0x41;
	}
	assert_int_equal(policy_image_verify(f.data, f.len, &why), 0);
	fixture_close(&f);
}

/* Whoever can forge the checksum must still not make the engine read outside: every byte takes hostile values, the sum
 * is made right, and what passes is used. */
static void test_forged_images_are_harmless(void **unused)
{
	static const uint8_t hostile[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	struct fixture f;
	struct err why;
	size_t passed = 0, refused = 0;

	(void)unused;
	fixture_open(&f, "tz Asia/Kolkata\nset nets cidr { 10.0.0.0/8 192.0.2.1 2001:db8::/32 }\n"
			 "window w { mon-fri 08:00-18:00 except 2026-12-24 }\n"
			 "rule a deny to domain .example.com *.example.org log alert owner o\n"
			 "rule b allow group hr eng client @nets to regex \"a.*\" \"b.*\" port 1-5 22 during w\n"
			 "rule c monitor allow listener main method password to country DE unknown\n"
			 "rule d allow to cidr @nets internal source 192.0.2.9 until 2026-12-31\n");
	policy_image_close(&f.image);
	for (size_t n = 0; n < f.len; n++) {
		uint8_t was = f.data[n];

		for (size_t i = 0; i < sizeof hostile; i++) {
			f.data[n] = hostile[i];
			image_seal(f.data, f.len);
			if (policy_image_verify(f.data, f.len, &why) == 0) {
				passed++;
				use(f.data, f.len);
			} else {
				refused++;
			}
		}
		f.data[n] = was;
	}
	image_seal(f.data, f.len);
	assert_true(passed > 0 && refused > 0);
	fixture_close(&f);
}

/* Offsets and counts as whole numbers, not only byte by byte. */
static void test_forged_sections_are_refused(void **unused)
{
	static const uint32_t hostile[] = {0, 1, 4, 7, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
	struct fixture f;
	struct err why;

	(void)unused;
	fixture_open(&f, everything);
	policy_image_close(&f.image);
	struct img_header *h = (struct img_header *)f.data;

	for (int s = 0; s < SECTION_COUNT; s++) {
		for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
			uint32_t offset = h->sections[s].offset, count = h->sections[s].count;

			h->sections[s].offset = hostile[i];
			image_seal(f.data, f.len);
			assert_int_equal(policy_image_verify(f.data, f.len, &why), -1);
			h->sections[s].offset = offset;
			h->sections[s].count = hostile[i];
			image_seal(f.data, f.len);
			if (policy_image_verify(f.data, f.len, &why) == 0)
				use(f.data, f.len);
			h->sections[s].count = count;
		}
	}
	fixture_close(&f);
}

static void assert_refused(struct fixture *f)
{
	struct err why;

	image_seal(f->data, f->len);
	assert_int_equal(policy_image_verify(f->data, f->len, &why), -1);
}

/* What a condition holds is what its predicate says, in a form of its kind. */
static void test_conditions_that_hold_something_else_are_refused(void **unused)
{
	struct fixture f;
	struct err why;
	size_t changed = 0;

	(void)unused;
	fixture_open(&f, everything);
	policy_image_close(&f.image);
	struct img_header *h = (struct img_header *)f.data;
	struct img_cond *conds = (struct img_cond *)(f.data + h->sections[SEC_COND].offset);

	for (uint32_t i = 0; i < h->sections[SEC_COND].count; i++) {
		struct img_cond was = conds[i];

		for (unsigned form = COND_BITS; form <= COND_KNOWN + 1; form++)
			for (unsigned count = 0; count <= COND_WORD_MAX + 1; count++) {
				conds[i].form = (uint8_t)form;
				conds[i].count = (uint8_t)count;
				bool same = form == was.form && count == was.count;
				/* Forms without a number of values. */
				bool bare = form == was.form && (form == COND_BITS || form == COND_KNOWN);

				if (!same && !bare) {
					assert_refused(&f);
					changed++;
				}
			}
		conds[i] = was;
		if (was.form == COND_PRED)
			continue;
		for (size_t n = 0; n < (was.count == 0 ? 1 : was.count); n++) {
			((uint8_t *)&conds[i].held)[n] ^= 0x10;
			assert_refused(&f);
			conds[i] = was;
		}
	}
	image_seal(f.data, f.len);
	assert_int_equal(policy_image_verify(f.data, f.len, &why), 0);
	assert_true(changed > 1000);
	fixture_close(&f);
}

/* Two predicates with one slot would take each other's values for their own. */
static void test_slots_are_not_shared(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_open(&f, "rule a deny to regex \"good.*\" user bob\nrule b deny to regex \"evil.*\"\nrule c allow\n");
	policy_image_close(&f.image);
	struct img_header *h = (struct img_header *)f.data;
	struct img_pred *preds = (struct img_pred *)(f.data + h->sections[SEC_PRED].offset);
	struct img_cond *conds = (struct img_cond *)(f.data + h->sections[SEC_COND].offset);

	assert_int_equal(h->slots, 2);
	for (uint32_t i = 0; i < h->sections[SEC_PRED].count; i++)
		preds[i].slot = preds[i].kind == PRED_REGEX;
	for (uint32_t i = 0; i < h->sections[SEC_COND].count; i++)
		if (conds[i].form == COND_KNOWN)
			conds[i].held.slot = 1;
	assert_refused(&f);
	fixture_close(&f);
}

/* A request goes down a way for each of its groups: over and over, that would be without end. */
static void test_a_field_comes_once_on_a_way(void **unused)
{
	char text[20000] = "";
	struct fixture f;
	size_t nested = 0;

	(void)unused;
	for (unsigned i = 0; i < 100; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "rule r%u allow group g%u user u%u\n", i,
			 i / 10, i % 10);
	fixture_open(&f, text);
	policy_image_close(&f.image);
	struct img_header *h = (struct img_header *)f.data;
	struct img_table *tables = (struct img_table *)(f.data + h->sections[SEC_TABLE].offset);

	for (uint32_t i = 0; i < h->sections[SEC_TABLE].count; i++) {
		uint32_t was = tables[i].field;

		tables[i].field = was == FIELD_USER ? FIELD_GROUP : FIELD_USER;
		assert_refused(&f);
		tables[i].field = was;
		nested++;
	}
	assert_true(nested > 2);
	fixture_close(&f);
}

static void test_other_versions_are_refused(void **unused)
{
	struct fixture f;
	struct err why;

	(void)unused;
	fixture_open(&f, "rule a allow\n");
	((struct img_header *)f.data)->version++;
	image_seal(f.data, f.len);
	assert_int_equal(policy_image_verify(f.data, f.len, &why), -1);
	assert_non_null(strstr(why.text, "version"));
	assert_null(policy_image_open(f.data, f.len, &why));
	((struct img_header *)f.data)->version--;
	fixture_close(&f);
}

static void test_equal_conditions_are_one_predicate(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_open(&f, "set s cidr { 10.0.0.0/8 }\nrule a deny to cidr @s port 22\nrule b allow not to cidr @s port "
			 "22 user ann\n");
	assert_int_equal(image_count(f.image, SEC_PRED), 3);
	fixture_close(&f);
}

static void test_ranges_are_merged(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_open(&f, "rule a deny to cidr 11.0.0.0/8 10.0.0.0/8 10.1.0.0/16 192.0.2.2-192.0.2.9 "
			 "192.0.2.8-192.0.2.20 ::1 ::2 port 1-5 6 4-8 10\n");
	/* Also: what of it opens the guard, which is 10/8 and two single addresses. */
	assert_int_equal(image_count(f.image, SEC_RANGE4), 2 + 1);
	assert_int_equal(image_count(f.image, SEC_RANGE6), 1 + 1);
	assert_int_equal(image_count(f.image, SEC_PORT), 2);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_compiled_image_is_sound),
		cmocka_unit_test(test_compiling_twice_gives_the_same_bytes),
		cmocka_unit_test(test_every_truncation_is_refused),
		cmocka_unit_test(test_every_changed_byte_is_refused),
		cmocka_unit_test(test_forged_images_are_harmless),
		cmocka_unit_test(test_forged_sections_are_refused),
		cmocka_unit_test(test_conditions_that_hold_something_else_are_refused),
		cmocka_unit_test(test_slots_are_not_shared),
		cmocka_unit_test(test_a_field_comes_once_on_a_way),
		cmocka_unit_test(test_other_versions_are_refused),
		cmocka_unit_test(test_equal_conditions_are_one_predicate),
		cmocka_unit_test(test_ranges_are_merged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
