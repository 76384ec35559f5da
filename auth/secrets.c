#include "config.h"

#include "auth/secrets.h"

#include <stdlib.h>
#include <string.h>

#include "auth/auth.h"
#include "common/locked.h"

struct secret {
	struct secret *next_free;
	char text[AUTH_TEXT_MAX + 1];
};

struct secrets {
	struct secret *all, *free;
	size_t n, used, size; /* beyond used, nothing has been touched */
};

struct secrets *secrets_new(size_t n)
{
	struct secrets *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->n = n;
	s->size = (n > 0 ? n : 1) * sizeof *s->all;
	s->all = locked_new(s->size);
	if (s->all == NULL) {
		free(s);
		return NULL;
	}
	return s;
}

void secrets_free(struct secrets **s)
{
	if (*s == NULL)
		return;
	locked_free((*s)->all, (*s)->size);
	free(*s);
	*s = NULL;
}

struct secret *secret_new(struct secrets *s, const char *text)
{
	struct secret *secret = s->free;
	size_t len = strlen(text);

	if (len > AUTH_TEXT_MAX || (secret == NULL && s->used == s->n))
		return NULL;
	if (secret == NULL)
		secret = &s->all[s->used++];
	else
		s->free = secret->next_free;
	memcpy(secret->text, text, len + 1);
	return secret;
}

const char *secret_text(const struct secret *secret)
{
	return secret->text;
}

void secret_free(struct secrets *s, struct secret **secret)
{
	if (*secret == NULL)
		return;
	explicit_bzero((*secret)->text, sizeof (*secret)->text);
	(*secret)->next_free = s->free;
	s->free = *secret;
	*secret = NULL;
}
