/*
 * Behaviours of protocol/message.c: what passes, what does not and in which words, and that SPEC.md
 * says the same as the table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/frame.h"
#include "protocol/message.h"

#define ERROR_SIZE 200
#define ID "0123456789abcdef"
#define HEX32 "00112233445566778899aabbccddeeff"
#define HEX64 HEX32 HEX32

/* Of an offer, and of a question about one. */
#define OFFER_MEMBERS                                                                                                           \
    "\"migration\":\"" ID "\",\"vm\":\"w\xc3\xa9"                                                                               \
    "b\",\"uuid\":\"u\","                                                                                                       \
    "\"mode\":\"live\",\"machine\":\"pc-q35-7.2\",\"qemu_version\":\"7.2.22\","                                                 \
    "\"ram_bytes\":536936448,\"page_cache_bytes\":0,\"launch\":[\"/usr/bin/qemu-system-x86_64\",\"-append\",\"\","              \
    "\"a\\nb\"],\"lanes\":2,\"paused_limit_ms\":30000,\"reconnect_timeout_ms\":7,\"trial\":false,\"disks\":[{\"name\":\"vd0\"," \
    "\"node\":\"#block121\",\"path\":\"/a/b.qcow2\",\"format\":\"qcow2\",\"size\":4294967296,"                                  \
    "\"allocated\":65536,\"cluster_size\":65536,\"target\":\"fast\",\"read_only\":false}]}"

static const char *const good_messages[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_HELLO] = "{\"type\":\"hello\",\"greeting\":\"" HEX64 "\",\"version\":1,"
                      "\"host\":\"h1\",\"software\":\"watari 0.1.0\"}",
    [MESSAGE_PING] = "{\"type\":\"ping\",\"sent\":0}",
    [MESSAGE_PONG] = "{\"type\":\"pong\",\"sent\":9223372036854775807,\"received\":2}",
    [MESSAGE_PREFLIGHT] = "{\"type\":\"preflight\"," OFFER_MEMBERS,
    [MESSAGE_FINDINGS] =
        "{\"type\":\"findings\",\"migration\":\"" ID "\",\"findings\":[{\"level\":\"blocker\","
        "\"id\":\"pool-full\",\"text\":\"no room\\nat all\"}]}",
    [MESSAGE_OFFER] = "{\"type\":\"offer\"," OFFER_MEMBERS,
    [MESSAGE_ACCEPT] =
        "{\"type\":\"accept\",\"migration\":\"" ID "\",\"tickets\":[{\"ticket\":"
        "\"" HEX32 "\",\"key\":\"" HEX64 "\"}],\"disks\":[{\"path\":\"/p/b.qcow2\","
        "\"reads_as_zero\":true}],\"page_cache_bytes\":5,\"pid\":77,\"qmp\":\"/run/q\",\"launch\":\"/l\","
        "\"log\":\"/log\",\"host\":\"h2\"}",
    [MESSAGE_REFUSE] = "{\"type\":\"refuse\",\"migration\":\"" ID "\",\"error\":\"pool-missing\","
                       "\"text\":\"there is no pool fast\\nthere is one slow\"}",
    [MESSAGE_LIMIT] = "{\"type\":\"limit\",\"migration\":\"" ID "\",\"bandwidth\":125000}",
    [MESSAGE_MOVER_LOST] = "{\"type\":\"mover-lost\",\"migration\":\"" ID
                           "\",\"movers\":0,\"text\":\"killed by signal 9\"}",
    [MESSAGE_RESUME] = "{\"type\":\"resume\",\"migration\":\"" ID "\",\"epoch\":1,\"movers\":0}",
    [MESSAGE_RESUMED] = "{\"type\":\"resumed\",\"migration\":\"" ID
                        "\",\"epoch\":1,\"pid\":77,\"tickets\":[{\"ticket\":\"" HEX32
                        "\",\"key\":\"" HEX32 HEX32 "\"}]}",
    [MESSAGE_MEMORY] = "{\"type\":\"memory\",\"migration\":\"" ID "\"}",
    [MESSAGE_MEMORY_READY] = "{\"type\":\"memory-ready\",\"migration\":\"" ID "\"}",
    [MESSAGE_SENT] =
        "{\"type\":\"sent\",\"migration\":\"" ID "\",\"bytes\":5,\"hash\":\"" HEX32 "\"}",
    [MESSAGE_LOADED] = "{\"type\":\"loaded\",\"migration\":\"" ID "\",\"nonce\":\"" HEX32 "\","
                       "\"bytes\":5,\"hash\":\"" HEX32 "\"}",
    [MESSAGE_COMMIT] = "{\"type\":\"commit\",\"migration\":\"" ID "\",\"nonce\":\"" HEX32 "\"}",
    [MESSAGE_OWNED] =
        "{\"type\":\"owned\",\"migration\":\"" ID "\",\"running\":true,\"resumed_at\":12}",
    [MESSAGE_REFUSED] =
        "{\"type\":\"refused\",\"migration\":\"" ID "\",\"refusal\":1,\"copy\":true,\"text\":\"\"}",
    [MESSAGE_TAKEN_BACK] = "{\"type\":\"taken-back\",\"migration\":\"" ID "\"}",
    [MESSAGE_TRY_AGAIN] = "{\"type\":\"try-again\",\"migration\":\"" ID "\",\"refusal\":1}",
    [MESSAGE_DONE] = "{\"type\":\"done\",\"migration\":\"" ID "\"}",
    [MESSAGE_DONE_ACK] = "{\"type\":\"done-ack\",\"migration\":\"" ID "\"}",
    [MESSAGE_ABORT] =
        "{\"type\":\"abort\",\"migration\":\"" ID "\",\"error\":\"cancelled\",\"text\":\"t\"}",
    [MESSAGE_ABORTED] = "{\"type\":\"aborted\",\"migration\":\"" ID "\",\"text\":\"\"}",
    [MESSAGE_CONFLICT] = "{\"type\":\"conflict\",\"migration\":\"" ID "\",\"text\":\"\"}",
    [MESSAGE_QUERY] = "{\"type\":\"query\",\"migration\":\"" ID "\",\"sending\":false}",
    [MESSAGE_UNKNOWN] = "{\"type\":\"unknown\",\"migration\":\"" ID "\"}",
};

static json_t *parse(const char *text, enum message_type *type, char error[ERROR_SIZE])
{
    error[0] = '\0';
    return message_parse((const uint8_t *)text, strlen(text), type, error, ERROR_SIZE);
}

static json_t *good(enum message_type which)
{
    enum message_type type;
    char error[ERROR_SIZE];
    json_t *object = parse(good_messages[which], &type, error);
    assert_string_equal(error, "");
    assert_non_null(object);
    assert_int_equal(type, which);
    return object;
}

/* OBJECT (taken over) must be refused with a sentence that has all of WORDS in it. */
static void refused_object(json_t *object, const char *word, const char *other_word)
{
    enum message_type type;
    char error[ERROR_SIZE] = "";
    assert_false(message_check(object, &type, error, ERROR_SIZE));
    assert_non_null(strstr(error, word));
    assert_non_null(strstr(error, other_word));
    json_decref(object);
}

static void refused_text(const char *text, const char *word)
{
    enum message_type type;
    char error[ERROR_SIZE];
    assert_null(parse(text, &type, error));
    assert_non_null(strstr(error, word));
}

/* A good message with one member set to VALUE (taken over; NULL removes it) must be refused by that
 * member's name. */
static void refused_member(enum message_type which, const char *member, json_t *value)
{
    json_t *object = good(which);
    if (value == NULL) {
        assert_int_equal(json_object_del(object, member), 0);
    } else {
        assert_int_equal(json_object_set_new(object, member, value), 0);
    }
    refused_object(object, message_type_name(which), member);
}

static void passes_member(enum message_type which, const char *member, json_t *value)
{
    enum message_type type;
    char error[ERROR_SIZE] = "";
    json_t *object = good(which);
    assert_int_equal(json_object_set_new(object, member, value), 0);
    if (!message_check(object, &type, error, ERROR_SIZE)) {
        fail_msg("%s", error);
    }
    json_decref(object);
}

static json_t *string_of(char character, size_t length)
{
    char *text = malloc(length + 1);
    assert_non_null(text);
    memset(text, character, length);
    text[length] = '\0';
    json_t *string = json_string(text);
    free(text);
    return string;
}

static void each_message_passes_in_its_full_form(void **state)
{
    (void)state;
    for (int i = 0; i < MESSAGE_TYPE_COUNT; i++) {
        json_decref(good((enum message_type)i));
    }
}

static void each_required_field_is_missed_by_its_name(void **state)
{
    (void)state;
    const char *type, *field, *kind;
    bool required;
    for (size_t i = 0; message_describe(i, &type, &field, &kind, &required); i++) {
        if (strstr(field, "[]") != NULL) {
            continue;
        }
        for (int which = 0; which < MESSAGE_TYPE_COUNT; which++) {
            if (strcmp(type, message_type_name((enum message_type)which)) != 0) {
                continue;
            }
            if (required) {
                refused_member((enum message_type)which, field, NULL);
            }
            refused_member((enum message_type)which, field, json_null());
            refused_member((enum message_type)which, field, json_real(1.5));
        }
    }
}

static void fields_of_objects_in_arrays_are_told_with_their_index(void **state)
{
    (void)state;
    json_t *object = good(MESSAGE_OFFER);
    json_t *disks = json_object_get(object, "disks");
    json_t *second = json_deep_copy(json_array_get(disks, 0));
    json_object_set_new(second, "size", json_integer(-1));
    json_array_append_new(disks, second);
    refused_object(object, "disks[1].size", "integer 0..2^63-1");

    object = good(MESSAGE_OFFER);
    json_object_del(json_array_get(json_object_get(object, "disks"), 0), "read_only");
    refused_object(object, "disks[0].read_only", "missing");

    object = good(MESSAGE_ACCEPT);
    json_array_append_new(json_object_get(object, "tickets"), json_string("x"));
    refused_object(object, "tickets[1]", "not an object");

    object = good(MESSAGE_ACCEPT);
    json_object_set_new(json_array_get(json_object_get(object, "tickets"), 0), "key",
                        json_string(HEX32));
    refused_object(object, "tickets[0].key", "hex 64");
}

static void optional_fields_may_be_absent_but_not_wrong(void **state)
{
    (void)state;
    enum message_type type;
    char error[ERROR_SIZE];
    json_t *object = good(MESSAGE_OFFER);
    json_object_del(object, "uuid");
    json_t *disk = json_array_get(json_object_get(object, "disks"), 0);
    json_object_del(disk, "cluster_size");
    json_object_del(disk, "target");
    assert_true(message_check(object, &type, error, ERROR_SIZE));
    json_object_set_new(disk, "target", json_integer(1));
    refused_object(object, "disks[0].target", "string 1..4096");
}

static void array_lengths_have_bounds(void **state)
{
    (void)state;
    json_t *launch = json_array(), *disks = json_array(), *tickets = json_array();
    refused_member(MESSAGE_OFFER, "launch", json_array());
    refused_member(MESSAGE_ACCEPT, "tickets", json_array());
    passes_member(MESSAGE_OFFER, "disks", json_array());
    for (int i = 0; i < 4096; i++) {
        json_array_append_new(launch, json_string("-x"));
    }
    passes_member(MESSAGE_OFFER, "launch", json_incref(launch));
    json_array_append_new(launch, json_string("-x"));
    refused_member(MESSAGE_OFFER, "launch", launch);

    json_t *offer = good(MESSAGE_OFFER), *accept = good(MESSAGE_ACCEPT);
    for (int i = 0; i < 65; i++) {
        json_array_append(disks, json_array_get(json_object_get(offer, "disks"), 0));
        json_array_append(tickets, json_array_get(json_object_get(accept, "tickets"), 0));
    }
    refused_member(MESSAGE_OFFER, "disks", disks);
    refused_member(MESSAGE_ACCEPT, "tickets", tickets);
    json_decref(offer);
    json_decref(accept);
}

static void numbers_and_words_have_ranges(void **state)
{
    (void)state;
    refused_member(MESSAGE_HELLO, "version", json_integer(0));
    refused_member(MESSAGE_HELLO, "version", json_integer(256));
    passes_member(MESSAGE_HELLO, "version", json_integer(255));
    refused_member(MESSAGE_OFFER, "lanes", json_integer(0));
    refused_member(MESSAGE_OFFER, "lanes", json_integer(65));
    refused_member(MESSAGE_OFFER, "ram_bytes", json_integer(-1));
    refused_member(MESSAGE_OFFER, "mode", json_string("slow"));
    passes_member(MESSAGE_OFFER, "mode", json_string("quick"));
    refused_member(MESSAGE_OWNED, "running", json_integer(1));
    refused_text("{\"type\":\"ping\",\"sent\":9223372036854775808}", "JSON");
    refused_text("{\"type\":\"ping\",\"sent\":1e3}", "sent");
}

static void identifiers_are_lower_case_hexadecimal_of_their_length(void **state)
{
    (void)state;
    refused_member(MESSAGE_QUERY, "migration", json_string("0123456789abcde"));
    refused_member(MESSAGE_QUERY, "migration", json_string("0123456789abcdef0"));
    refused_member(MESSAGE_QUERY, "migration", json_string("0123456789ABCDEF"));
    refused_member(MESSAGE_QUERY, "migration", json_string("0123456789abcdeg"));
    refused_member(MESSAGE_QUERY, "migration", json_stringn("0123456789abcde\0", 16));
    refused_member(MESSAGE_COMMIT, "nonce", json_string(HEX64));
}

static void names_and_paths_have_no_control_characters(void **state)
{
    (void)state;
    static const char *const bad[] = {"",      "a\nb",     "a\tb",     "a\x1b[2J",
                                      "a\x7f", "\xc2\x80", "a\xc2\x9f"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refused_member(MESSAGE_OFFER, "vm", json_string(bad[i]));
    }
    refused_member(MESSAGE_OFFER, "vm", json_stringn("a\0b", 3));
    passes_member(MESSAGE_OFFER, "vm", json_string("\xc2\xa0")); /* the first beyond C1 */
    passes_member(MESSAGE_OFFER, "vm", string_of('a', 255));
    refused_member(MESSAGE_OFFER, "vm", string_of('a', 256));
    passes_member(MESSAGE_REFUSE, "text", json_string("one\n\ttwo"));
    passes_member(MESSAGE_REFUSE, "text", string_of('a', 4096));
    refused_member(MESSAGE_REFUSE, "text", string_of('a', 4097));
    refused_member(MESSAGE_REFUSE, "text", json_string("a\x1b[2J"));
    refused_member(MESSAGE_REFUSE, "text", json_string("a\rb"));
}

static void arguments_may_have_anything_but_nul(void **state)
{
    (void)state;
    passes_member(MESSAGE_OFFER, "launch", json_pack("[sss]", "q", "a\nb\x1b", ""));
    json_t *launch = json_array();
    json_array_append_new(launch, json_stringn("a\0b", 3));
    refused_member(MESSAGE_OFFER, "launch", launch);
    refused_member(MESSAGE_OFFER, "launch", json_pack("[si]", "q", 1));
    launch = json_array();
    json_array_append_new(launch, string_of('a', 131071));
    passes_member(MESSAGE_OFFER, "launch", launch);
    launch = json_array();
    json_array_append_new(launch, string_of('a', 131072));
    refused_member(MESSAGE_OFFER, "launch", launch);
}

static void members_of_a_newer_peer_are_ignored(void **state)
{
    (void)state;
    passes_member(MESSAGE_DONE, "colour", json_string("a\nb"));
}

static void what_is_no_message_is_refused(void **state)
{
    (void)state;
    refused_text("", "JSON");
    refused_text("[]", "object");
    refused_text("{}", "type");
    refused_text("{\"type\":1}", "type");
    refused_text("{\"type\":\"dance\"}", "dance");
    refused_text("{\"type\":\"a\\u001b[2J\"}", "type");
    refused_text("{\"type\":\"ping\",\"sent\":1} x", "JSON");
    refused_text("{\"type\":\"ping\",\"sent\":1,\"sent\":2}", "JSON");
    refused_text("{\"type\":\"ping\",\"sent\":1,\"x\":\"\xff\"}", "JSON");
    refused_text("{\"type\":\"ping\",\"sent\":1,\"x\":\"\\u0000\"}", "JSON");
}

static void what_jansson_quotes_of_a_peer_stays_out_of_the_sentence(void **state)
{
    (void)state;
    enum message_type type;
    char error[ERROR_SIZE];
    assert_null(parse("{\"type\":\"ping\" \x1b[2J}", &type, error));
    assert_null(strchr(error, '\x1b'));
}

static void a_body_longer_than_a_frame_is_refused(void **state)
{
    (void)state;
    enum message_type type;
    char error[ERROR_SIZE];
    size_t size = FRAME_CONTROL_BODY_MAX + 1;
    uint8_t *body = malloc(size);
    assert_non_null(body);
    memset(body, ' ', size);
    assert_null(message_parse(body, size, &type, error, ERROR_SIZE));
    assert_non_null(strstr(error, "longer"));
    memset(body, '[', size);
    assert_null(message_parse(body, size - 1, &type, error, ERROR_SIZE)); /* nested beyond bounds */
    free(body);
}

static void any_bytes_can_be_made_a_text(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"", ""},
        {"no space left\n\ton /srv", "no space left\n\ton /srv"},
        {"a\r\x1b[2J\x7f", "a??[2J?"},
        {"w\xc3\xa9"
         "b",
         "w\xc3\xa9"
         "b"},
        {"\xc2\x9b"
         "2J",
         "??2J"},
        {"caf\xe9", "caf?"},
        {"\xc2", "?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *text = message_text(cases[i].bytes);
        assert_non_null(text);
        assert_string_equal(json_string_value(text), cases[i].text);
        passes_member(MESSAGE_REFUSE, "text", text);
    }
    char long_text[6001];
    for (size_t i = 0; i + 3 <= 6000; i += 3) {
        memcpy(long_text + i, "\xe2\x82\xac", 3);
    }
    long_text[6000] = '\0';
    json_t *text = message_text(long_text);
    assert_int_equal(json_string_length(text), 4095); /* whole characters */
    passes_member(MESSAGE_REFUSE, "text", text);
}

/* --- SPEC.md --- */

#define ROWS_MAX 200
#define CELL_SIZE 40

struct row {
    char cells[4][CELL_SIZE];
};

static FILE *specification_open(void)
{
    const char *root = getenv("WATARI_SOURCE_ROOT");
    const char *const roots[] = {root != NULL ? root : ".", "..", "../.."};
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/protocol/SPEC.md", roots[i]);
        FILE *file = fopen(path, "re");
        if (file != NULL) {
            return file;
        }
    }
    fail_msg("protocol/SPEC.md not found: set WATARI_SOURCE_ROOT to the repository");
    return NULL;
}

/* False when LINE is no row of a table with four columns. */
static bool row_read(const char *line, struct row *row)
{
    int used = 0;
    int cells = sscanf(line, "| %39[^|]| %39[^|]| %39[^|]| %39[^|]|%n", row->cells[0],
                       row->cells[1], row->cells[2], row->cells[3], &used);
    if (cells != 4 || used == 0 || strcmp(line + used, "\n") != 0) {
        return false;
    }
    for (size_t i = 0; i < 4; i++) {
        size_t length = strlen(row->cells[i]);
        if (length == 0 || row->cells[i][length - 1] != ' ') {
            return false;
        }
        row->cells[i][length - 1] = '\0';
    }
    return true;
}

/* The rows of all tables headed "| message | field | kind | required |". */
static size_t specification_rows(struct row rows[ROWS_MAX])
{
    FILE *file = specification_open();
    char line[2048];
    size_t count = 0;
    bool inside = false;
    while (fgets(line, sizeof line, file) != NULL) {
        if (strcmp(line, "| message | field | kind | required |\n") == 0) {
            assert_non_null(fgets(line, sizeof line, file)); /* the rule below the heading */
            inside = true;
        } else if (inside) {
            assert_true(count < ROWS_MAX);
            inside = row_read(line, &rows[count]);
            count += inside ? 1 : 0;
        }
    }
    fclose(file);
    return count;
}

static void the_specification_and_the_table_are_equal(void **state)
{
    (void)state;
    static struct row rows[ROWS_MAX];
    static bool seen[ROWS_MAX];
    size_t count = specification_rows(rows);
    const char *type, *field, *kind;
    bool required;
    size_t described = 0;
    for (; message_describe(described, &type, &field, &kind, &required); described++) {
        size_t i = 0;
        while (i < count &&
               (strcmp(rows[i].cells[0], type) != 0 || strcmp(rows[i].cells[1], field) != 0)) {
            i++;
        }
        if (i == count) {
            fail_msg("SPEC.md lacks the row | %s | %s |", type, field);
        }
        assert_false(seen[i]);
        seen[i] = true;
        assert_string_equal(rows[i].cells[2], kind);
        assert_string_equal(rows[i].cells[3], required ? "required" : "optional");
    }
    for (size_t i = 0; i < count; i++) {
        if (!seen[i]) {
            fail_msg("SPEC.md has a row | %s | %s | that no message has", rows[i].cells[0],
                     rows[i].cells[1]);
        }
    }
    assert_int_equal(count, described);
}

static void each_type_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < MESSAGE_TYPE_COUNT; i++) {
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(message_type_name((enum message_type)i),
                                    message_type_name((enum message_type)j));
        }
    }
    assert_string_equal(message_type_name(MESSAGE_TYPE_COUNT), "invalid");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_message_passes_in_its_full_form),
        cmocka_unit_test(each_required_field_is_missed_by_its_name),
        cmocka_unit_test(fields_of_objects_in_arrays_are_told_with_their_index),
        cmocka_unit_test(optional_fields_may_be_absent_but_not_wrong),
        cmocka_unit_test(array_lengths_have_bounds),
        cmocka_unit_test(numbers_and_words_have_ranges),
        cmocka_unit_test(identifiers_are_lower_case_hexadecimal_of_their_length),
        cmocka_unit_test(names_and_paths_have_no_control_characters),
        cmocka_unit_test(arguments_may_have_anything_but_nul),
        cmocka_unit_test(members_of_a_newer_peer_are_ignored),
        cmocka_unit_test(what_is_no_message_is_refused),
        cmocka_unit_test(what_jansson_quotes_of_a_peer_stays_out_of_the_sentence),
        cmocka_unit_test(a_body_longer_than_a_frame_is_refused),
        cmocka_unit_test(any_bytes_can_be_made_a_text),
        cmocka_unit_test(the_specification_and_the_table_are_equal),
        cmocka_unit_test(each_type_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
