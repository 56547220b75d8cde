#include "pause_point.h"

#include "log.h"
#include "must.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* NAME is blotted out in the comma separated LIST, so that it is not found again. False when it is not in there. */
static bool take(char *list, const char *name)
{
    size_t length = strlen(name);

    for (;;) {
        size_t part = strcspn(list, ",");

        if (part == length && strncmp(list, name, length) == 0) {
            memset(list, ' ', length);
            return true;
        }
        if (list[part] == '\0') {
            return false;
        }
        list += part + 1;
    }
}

void pause_point(const char *name)
{
    static char *left;

    if (!left) {
        const char *wanted = getenv("WATARI_PAUSE_AT");

        left = must_copy(wanted ? wanted : "");
    }
    if (take(left, name)) {
        log_info("pause point %s", name);
        kill(getpid(), SIGSTOP);
    }
}
