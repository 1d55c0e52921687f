/* assert: what a failing assertion does. Any thread. */
#include "core/assert.h"

#include <stdio.h>
#include <stdlib.h>

void plait__assert_failed(const char *unit, const char *file, int line, const char *expression)
{
    fprintf(stderr, "plait: %s: %s:%d: assertion failed: %s\n", unit, file, line, expression);
    fflush(stderr);
    abort();
}
