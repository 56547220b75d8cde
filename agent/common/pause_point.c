#include "pause_point.h"

#include "log.h"
#include "must.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is left of the list of names. */
static char *ahead(void)
{
    static char *left;

    if (!left) {
        const char *wanted = getenv("WATARI_PAUSE_AT");

        left = must_copy(wanted ? wanted : "");
    }
    return left;
}

/* Where NAME stands in the comma separated LIST; NULL when it is not in there. */
static char *find(char *list, const char *name)
{
    size_t length = strlen(name);

    for (;;) {
        size_t part = strcspn(list, ",");

        if (part == length && strncmp(list, name, length) == 0) {
            return list;
        }
        if (list[part] == '\0') {
            return NULL;
        }
        list += part + 1;
    }
}

bool pause_point_ahead(const char *name)
{
    return find(ahead(), name) != NULL;
}

void pause_point(const char *name)
{
    char *place = find(ahead(), name);

    if (place) {
        memset(place, ' ', strlen(name)); /* not found again */
        log_info("pause point %s", name);
        kill(getpid(), SIGSTOP);
    }
}
