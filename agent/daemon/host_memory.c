#include "host_memory.h"

#include "agent/common/log.h"

#include <stdio.h>
#include <string.h>

#define MEMINFO "/proc/meminfo"
/* MemAvailable is its third line. */
#define HEAD_SIZE 1024

bool host_memory_parse(const char *text, uint64_t *bytes)
{
    const char *line = strstr(text, "\nMemAvailable:");
    unsigned long long kib;

    if (!line || sscanf(line, "\nMemAvailable: %llu kB", &kib) != 1 || kib > UINT64_MAX >> 10) {
        return false;
    }
    *bytes = (uint64_t)kib << 10;
    return true;
}

uint64_t host_memory_available(void)
{
    char text[HEAD_SIZE] = "";
    FILE *file = fopen(MEMINFO, "re");
    uint64_t bytes = 0;

    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
    }
    if (!host_memory_parse(text, &bytes)) {
        log_warning(MEMINFO " does not say how much memory is available: pages sent again cost as "
                            "much as the first time");
    }
    return bytes;
}
