#include "settings.h"

#include "agent/common/units.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A packet that is longer on its way is none of a link between two hosts. */
#define TIME_MAX_MS 60000u
#define QUEUE_DEFAULT_MS 50u
#define NS_PER_MS 1000000ull

void settings_init(struct settings *settings)
{
    *settings = (struct settings){.queue_ns = QUEUE_DEFAULT_MS * NS_PER_MS};
}

static bool parse_time(const char *text, uint64_t *nanoseconds, struct error *error)
{
    uint64_t milliseconds;

    if (!units_parse_time(text, &milliseconds, error)) {
        return false;
    }
    if (milliseconds > TIME_MAX_MS) {
        return error_set(error, "bad-time", "\"%s\" is more than a minute", text);
    }
    *nanoseconds = milliseconds * NS_PER_MS;
    return true;
}

static bool parse_share(const char *text, uint32_t *ppm, struct error *error)
{
    size_t digits = strspn(text, "0123456789.");
    char *end;
    double share = strtod(text, &end);

    if (digits == 0 || end != text + digits || strcmp(end, "%") != 0 || share > 100) {
        return error_set(error, "bad-share", "\"%s\" is not a share from 0%% to 100%%, as 0.5%%",
                         text);
    }
    *ppm = (uint32_t)lround(share * WHOLE_PPM / 100);
    return true;
}

static bool parse_rate(const char *text, uint64_t *rate, struct error *error)
{
    if (strcmp(text, "none") == 0) {
        *rate = 0;
        return true;
    }
    if (!units_parse_rate(text, rate, error)) {
        return false;
    }
    return *rate > 0 || error_set(error, "bad-rate", "\"%s\" lets nothing through", text);
}

static bool set(struct settings *settings, const char *key, const char *value, struct error *error)
{
    if (strcmp(key, "delay") == 0) {
        return parse_time(value, &settings->delay_ns, error);
    }
    if (strcmp(key, "jitter") == 0) {
        return parse_time(value, &settings->jitter_ns, error);
    }
    if (strcmp(key, "queue") == 0) {
        return parse_time(value, &settings->queue_ns, error);
    }
    if (strcmp(key, "loss") == 0) {
        return parse_share(value, &settings->loss_ppm, error);
    }
    if (strcmp(key, "reorder") == 0) {
        return parse_share(value, &settings->reorder_ppm, error);
    }
    if (strcmp(key, "rate") == 0) {
        return parse_rate(value, &settings->rate, error);
    }
    return error_set(error, "bad-key",
                     "there is no \"%s\"; delay, jitter, loss, reorder, rate and queue are", key);
}

bool settings_parse(struct settings *settings, char *words, struct error *error)
{
    struct settings changed = *settings;
    char *rest = words;
    char *word;

    while ((word = strsep(&rest, " "))) {
        char *equals = strchr(word, '=');

        if (!equals) {
            return error_set(error, "bad-word", "\"%s\" is not KEY=VALUE", word);
        }
        *equals = '\0';
        if (!set(&changed, word, equals + 1, error)) {
            return error_prefix(error, "%s: ", word);
        }
    }
    *settings = changed;
    return true;
}
