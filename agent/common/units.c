#include "units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* More digits than this after the point are nobody's intention. */
#define MAX_FRACTION_DIGITS 6

/* A decimal number, kept exact: digits / scale. */
struct number {
    uint64_t digits;
    uint64_t scale; /* 1, 10, 100, ... */
};

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit time_units[] = {
    {"ms", 1},
    {"s", 1000},
    {"min", 60 * 1000},
    {"h", 60 * 60 * 1000},
};

static const struct unit size_units[] = {
    {"", 1}, {"k", 1ULL << 10}, {"m", 1ULL << 20}, {"g", 1ULL << 30}, {"t", 1ULL << 40},
};

/* In bits. */
static const struct unit bit_units[] = {
    {"bit", 1},
    {"kbit", 1000},
    {"mbit", 1000ULL * 1000},
    {"gbit", 1000ULL * 1000 * 1000},
    {"tbit", 1000ULL * 1000 * 1000 * 1000},
};

#define UNIT_COUNT(table) (sizeof(table) / sizeof((table)[0]))

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool take_digit(struct number *number, char c)
{
    return !__builtin_mul_overflow(number->digits, 10, &number->digits) &&
           !__builtin_add_overflow(number->digits, (uint64_t)(c - '0'), &number->digits);
}

/* Moves *text behind the number. strtod would take "inf", "0x10", "1e9" and the locale's comma. */
static bool take_number(const char **text, struct number *number)
{
    const char *at = *text;
    int fraction = 0;

    *number = (struct number){0, 1};
    if (!is_digit(*at)) {
        return false;
    }
    for (; is_digit(*at); at++) {
        if (!take_digit(number, *at)) {
            return false;
        }
    }
    if (*at == '.') {
        at++;
        for (; is_digit(*at); at++) {
            if (++fraction > MAX_FRACTION_DIGITS || !take_digit(number, *at)) {
                return false;
            }
            number->scale *= 10;
        }
        if (fraction == 0) {
            return false;
        }
    }
    *text = at;
    return true;
}

static const struct unit *find_unit(const struct unit *units, size_t count, const char *name,
                                    bool any_case)
{
    for (size_t i = 0; i < count; i++) {
        if ((any_case ? strcasecmp(units[i].name, name) : strcmp(units[i].name, name)) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

/* number * factor / divisor; *rest: something was cut off. False when it does not fit. */
static bool scale(const struct number *number, uint64_t factor, uint64_t divisor, uint64_t *out,
                  bool *rest)
{
    uint64_t product;

    if (__builtin_mul_overflow(number->digits, factor, &product)) {
        return false;
    }
    *rest = product % (number->scale * divisor) != 0;
    *out = product / (number->scale * divisor);
    return true;
}

bool units_parse_time(const char *text, uint64_t *milliseconds, struct error *error)
{
    const char *at = text;
    const struct unit *unit;
    struct number number;
    bool rest;

    if (!take_number(&at, &number)) {
        return error_set(error, "bad-time",
                         "\"%s\" is not a time: write a number with ms, s, min or h, as in 300ms",
                         text);
    }
    if (*at == '\0') {
        return error_set(error, "bad-time", "\"%s\" has no unit: write %sms, %ss, %smin or %sh",
                         text, text, text, text, text);
    }
    unit = find_unit(time_units, UNIT_COUNT(time_units), at, false);
    if (!unit) {
        return error_set(error, "bad-time",
                         "\"%s\": there is no time unit \"%s\"; ms, s, min and h are", text, at);
    }
    if (!scale(&number, unit->factor, 1, milliseconds, &rest)) {
        return error_set(error, "bad-time", "\"%s\" is too long a time", text);
    }
    if (rest) {
        return error_set(error, "bad-time", "\"%s\" is finer than a millisecond", text);
    }
    return true;
}

bool units_parse_size(const char *text, uint64_t *bytes, struct error *error)
{
    const char *at = text;
    const struct unit *unit;
    struct number number;
    bool rest;

    if (!take_number(&at, &number)) {
        return error_set(error, "bad-size",
                         "\"%s\" is not a size: write bytes, or a number with K, M, G or T", text);
    }
    unit = find_unit(size_units, UNIT_COUNT(size_units), at, true);
    if (!unit) {
        return error_set(error, "bad-size",
                         "\"%s\": there is no size unit \"%s\"; K, M, G and T are", text, at);
    }
    if (!scale(&number, unit->factor, 1, bytes, &rest)) {
        return error_set(error, "bad-size", "\"%s\" is too large a size", text);
    }
    if (rest) {
        return error_set(error, "bad-size", "\"%s\" is not a whole number of bytes", text);
    }
    return true;
}

bool units_parse_rate(const char *text, uint64_t *bytes_per_second, struct error *error)
{
    const char *at = text;
    const struct unit *unit;
    uint64_t divisor = 1;
    struct number number;
    bool rest;

    if (!take_number(&at, &number)) {
        return error_set(error, "bad-rate",
                         "\"%s\" is not a rate: write bytes a second as 10M, or bits as 100Mbit",
                         text);
    }
    unit = find_unit(size_units, UNIT_COUNT(size_units), at, true);
    if (!unit) {
        unit = find_unit(bit_units, UNIT_COUNT(bit_units), at, true);
        divisor = 8;
    }
    if (!unit) {
        return error_set(error, "bad-rate",
                         "\"%s\": there is no rate unit \"%s\"; K, M, G, T (bytes) and kbit, Mbit, "
                         "Gbit, Tbit are",
                         text, at);
    }
    if (!scale(&number, unit->factor, divisor, bytes_per_second, &rest)) {
        return error_set(error, "bad-rate", "\"%s\" is too high a rate", text);
    }
    return true;
}

const char *units_size(char buffer[UNITS_TEXT_SIZE], uint64_t bytes)
{
    static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        snprintf(buffer, UNITS_TEXT_SIZE, "%" PRIu64 " B", bytes);
        return buffer;
    }
    /* 1023.95 would be printed as "1024.0". */
    while (value >= 1023.95 && unit + 1 < UNIT_COUNT(names)) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, UNITS_TEXT_SIZE, "%.*f %s", value < 9.95 ? 1 : 0, value, names[unit]);
    return buffer;
}

const char *units_rate(char buffer[UNITS_TEXT_SIZE], uint64_t bytes_per_second)
{
    units_size(buffer, bytes_per_second);
    strcat(buffer, "/s");
    return buffer;
}

static const char *print_pair(char buffer[UNITS_TEXT_SIZE], uint64_t seconds)
{
    uint64_t hours = seconds / 3600, minutes = seconds / 60;

    if (hours) {
        snprintf(buffer, UNITS_TEXT_SIZE, "%" PRIu64 " h %02" PRIu64 " min", hours, minutes % 60);
    } else {
        snprintf(buffer, UNITS_TEXT_SIZE, "%" PRIu64 " min %02" PRIu64 " s", minutes, seconds % 60);
    }
    return buffer;
}

const char *units_time(char buffer[UNITS_TEXT_SIZE], double milliseconds)
{
    /* Written so that NaN counts as 0, and no double overflows the conversion below. */
    double value = milliseconds > 0 ? milliseconds : 0;

    if (value < 9.95) {
        snprintf(buffer, UNITS_TEXT_SIZE, value == 0 ? "%.0f ms" : "%.1f ms", value);
    } else if (value < 999.5) {
        snprintf(buffer, UNITS_TEXT_SIZE, "%.0f ms", value);
    } else if (value < 59950) {
        snprintf(buffer, UNITS_TEXT_SIZE, "%.1f s", value / 1000);
    } else if (value < 1e15) {
        print_pair(buffer, (uint64_t)(value / 1000 + 0.5));
    } else {
        snprintf(buffer, UNITS_TEXT_SIZE, "for ever");
    }
    return buffer;
}
