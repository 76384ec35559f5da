#include "config.h"

#include "auth/secrets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "auth/auth.h"
#include "common/log.h"

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
	s->all = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->all == MAP_FAILED) {
		free(s);
		return NULL;
	}
	if (mlock2(s->all, s->size, MLOCK_ONFAULT) != 0)
		log_warning("passwords that wait for PAM may be swapped out: %s (%zu bytes are over RLIMIT_MEMLOCK)", strerror(errno),
			    s->size);
	madvise(s->all, s->size, MADV_DONTDUMP);
	return s;
}

void secrets_free(struct secrets **s)
{
	if (*s == NULL)
		return;
	explicit_bzero((*s)->all, (*s)->size);
	munmap((*s)->all, (*s)->size);
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
