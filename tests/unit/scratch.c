#include "config.h"

#include "tests/unit/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char directory[] = "/tmp/gatewayd-test-XXXXXX";
static char before[4096];

static int drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int scratch_enter(void **state)
{
	(void)state;
	snprintf(directory, sizeof directory, "/tmp/gatewayd-test-XXXXXX");
	return getcwd(before, sizeof before) == NULL || mkdtemp(directory) == NULL || chdir(directory) != 0;
}

int scratch_leave(void **state)
{
	(void)state;
	return chdir(before) != 0 || nftw(directory, drop, 16, FTW_DEPTH | FTW_PHYS) != 0;
}
