/* A directory of a test's own, which is the current one while the test runs. */
#pragma once

/* cmocka setup and teardown. */
int scratch_enter(void **state);
int scratch_leave(void **state);
