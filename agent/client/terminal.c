#include "terminal.h"

#include "agent/common/json_line.h"
#include "agent/common/must.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEFAULT_WIDTH 80
#define COLUMN_GAP 2

/* Bytes of the UTF-8 sequence at TEXT (RFC 3629 §3), or 0 when there is none. */
static size_t sequence_length(const unsigned char *text)
{
    size_t length = text[0] < 0x80                      ? 1
                    : text[0] >= 0xc2 && text[0] < 0xe0 ? 2
                    : text[0] >= 0xe0 && text[0] < 0xf0 ? 3
                    : text[0] >= 0xf0 && text[0] < 0xf5 ? 4
                                                        : 0;

    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

static bool is_control(const unsigned char *text)
{
    return text[0] < 0x20 || text[0] == 0x7f || (text[0] == 0xc2 && text[1] < 0xa0);
}

void terminal_clean(char *text)
{
    unsigned char *at = (unsigned char *)text;

    while (*at) {
        size_t length = sequence_length(at);

        if (length == 0) {
            *at++ = '?';
            continue;
        }
        if (is_control(at)) {
            memset(at, '?', length);
        }
        at += length;
    }
}

size_t terminal_width(const char *text)
{
    size_t width = 0;

    for (; *text; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

static char *format_clean(const char *format, va_list arguments)
{
    char *text = NULL;

    if (vasprintf(&text, format, arguments) < 0) {
        return must_copy("(out of memory)");
    }
    terminal_clean(text);
    return text;
}

void terminal_line(FILE *out, const char *format, ...)
{
    va_list arguments;
    char *text;

    va_start(arguments, format);
    text = format_clean(format, arguments);
    va_end(arguments);
    fprintf(out, "%s\n", text);
    /* Whoever reads a pipe wants each line when it comes, and in the order of both streams. */
    fflush(out);
    free(text);
}

void terminal_json(const json_t *value)
{
    char *text = json_line_text(value, NULL);

    fputs(text ? text : "{}\n", stdout);
    fflush(stdout);
    free(text);
}

void terminal_json_new(json_t *value)
{
    terminal_json(value);
    json_decref(value);
}

static size_t columns_of_terminal(void)
{
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0) {
        return DEFAULT_WIDTH;
    }
    return size.ws_col;
}

static void cut(char *text, size_t width)
{
    size_t used = 0;

    for (; *text; text++) {
        if (((unsigned char)*text & 0xc0) != 0x80 && used++ == width) {
            *text = '\0';
            return;
        }
    }
}

void terminal_status_show(struct terminal_status *status, const char *text)
{
    char *copy = must_copy(text);

    terminal_clean(copy);
    cut(copy, columns_of_terminal() - 1);
    printf("\r\033[K%s", copy);
    fflush(stdout);
    status->shown = true;
    free(copy);
}

void terminal_status_end(struct terminal_status *status, bool keep)
{
    if (status->shown) {
        fputs(keep ? "\n" : "\r\033[K", stdout);
        fflush(stdout);
        status->shown = false;
    }
}

struct terminal_table {
    size_t columns;
    char **cells; /* row by row, the headings first */
    size_t count, capacity;
};

static void add_cell(struct terminal_table *table, char *text)
{
    if (table->count == table->capacity) {
        size_t capacity = 2 * table->capacity + 4 * table->columns;
        char **larger = must_alloc(capacity * sizeof *larger);

        if (table->count) {
            memcpy(larger, table->cells, table->count * sizeof *larger);
        }
        free(table->cells);
        table->cells = larger;
        table->capacity = capacity;
    }
    table->cells[table->count++] = text;
}

struct terminal_table *terminal_table_new(size_t columns, const char *const headings[])
{
    struct terminal_table *table = must_alloc(sizeof *table);

    table->columns = columns;
    for (size_t i = 0; i < columns; i++) {
        add_cell(table, must_copy(headings[i]));
    }
    return table;
}

void terminal_table_cell(struct terminal_table *table, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    add_cell(table, format_clean(format, arguments));
    va_end(arguments);
}

static void print_cells(const struct terminal_table *table, const size_t *widths, FILE *out)
{
    for (size_t i = 0; i < table->count; i++) {
        bool last = (i + 1) % table->columns == 0;
        size_t width = terminal_width(table->cells[i]);

        fputs(table->cells[i], out);
        if (last) {
            fputc('\n', out);
        } else {
            fprintf(out, "%*s", (int)(widths[i % table->columns] - width + COLUMN_GAP), "");
        }
    }
}

void terminal_table_print(struct terminal_table *table, FILE *out)
{
    size_t *widths = must_alloc(table->columns * sizeof *widths);

    for (size_t i = 0; i < table->count; i++) {
        size_t width = terminal_width(table->cells[i]);

        if (width > widths[i % table->columns]) {
            widths[i % table->columns] = width;
        }
    }
    print_cells(table, widths, out);
    free(widths);
    for (size_t i = 0; i < table->count; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    free(table);
}
