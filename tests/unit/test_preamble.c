/*
 * Behaviours of protocol/preamble.c: every byte in its place, strangers and later versions told
 * apart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/preamble.h"

static void lane_greeting_make(struct preamble *preamble)
{
    memset(preamble, 0, sizeof *preamble);
    preamble->kind = PREAMBLE_LANE;
    preamble->version_min = 1;
    preamble->version_max = 1;
    for (size_t i = 0; i < PREAMBLE_TICKET_SIZE; i++) {
        preamble->ticket[i] = (uint8_t)(0xa0 + i);
    }
}

static void control_greeting_write(uint8_t out[PREAMBLE_SIZE])
{
    struct preamble preamble = {.kind = PREAMBLE_CONTROL, .version_min = 1, .version_max = 1};
    preamble_encode(&preamble, out);
}

static void every_byte_is_where_the_specification_says(void **state)
{
    (void)state;
    static const uint8_t wanted[PREAMBLE_SIZE] = {
        'W',  'A',  'T',  'A',  'R',  'I',  0x0d, 0x0a, 0x02, 0x01, 0x01,
        0x00, 0x00, 0x00, 0x00, 0x00, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5,
        0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
    };
    struct preamble preamble;
    lane_greeting_make(&preamble);
    uint8_t bytes[PREAMBLE_SIZE];
    preamble_encode(&preamble, bytes);
    assert_memory_equal(bytes, wanted, PREAMBLE_SIZE);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    struct preamble preamble, read;
    lane_greeting_make(&preamble);
    uint8_t bytes[PREAMBLE_SIZE];
    preamble_encode(&preamble, bytes);
    assert_int_equal(preamble_decode(bytes, &read), PREAMBLE_OK);
    assert_int_equal(read.kind, PREAMBLE_LANE);
    assert_int_equal(read.version_min, 1);
    assert_int_equal(read.version_max, 1);
    assert_int_equal(read.reason, 0);
    assert_memory_equal(read.ticket, preamble.ticket, PREAMBLE_TICKET_SIZE);
}

static void a_stranger_is_told_apart_at_any_byte_of_the_magic(void **state)
{
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        uint8_t bytes[PREAMBLE_SIZE];
        control_greeting_write(bytes);
        bytes[i] ^= 0x20;
        struct preamble read;
        assert_int_equal(preamble_decode(bytes, &read), PREAMBLE_NOT_WATARI);
    }
}

static void a_refusal_and_a_tls_record_differ_in_the_first_byte(void **state)
{
    (void)state;
    struct preamble refusal = {.kind = PREAMBLE_REFUSAL,
                               .version_min = 1,
                               .version_max = 1,
                               .reason = PREAMBLE_REFUSED_BUSY};
    uint8_t bytes[PREAMBLE_SIZE];
    preamble_encode(&refusal, bytes);
    assert_int_equal(bytes[0], 'W');
    assert_int_not_equal(bytes[0], 0x16);
    struct preamble read;
    assert_int_equal(preamble_decode(bytes, &read), PREAMBLE_OK);
    assert_int_equal(read.reason, PREAMBLE_REFUSED_BUSY);
}

static void a_field_outside_its_range_is_malformed(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
    } damages[] = {
        {8, 0},                        /* kind */
        {8, 3},  {8, 254},   {8, 255}, /* a refusal without reason */
        {9, 0},                        /* no version below 1 */
        {9, 2},                        /* lowest above highest */
        {11, 1},                       /* a reason in a greeting */
        {12, 1}, {15, 0x80},           /* reserved */
        {16, 1}, {31, 1},              /* a ticket on a control connection */
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        uint8_t bytes[PREAMBLE_SIZE];
        control_greeting_write(bytes);
        bytes[damages[i].at] = damages[i].value;
        struct preamble read;
        assert_int_equal(preamble_decode(bytes, &read), PREAMBLE_MALFORMED);
    }
}

static void a_later_version_is_answered_even_when_it_uses_reserved_bytes(void **state)
{
    (void)state;
    uint8_t bytes[PREAMBLE_SIZE];
    control_greeting_write(bytes);
    bytes[8] = 7; /* a kind we do not know */
    bytes[9] = 2;
    bytes[10] = 9;
    bytes[13] = 0xff;
    struct preamble read;
    assert_int_equal(preamble_decode(bytes, &read), PREAMBLE_VERSION);
    assert_int_equal(read.version_min, 2);
    assert_int_equal(read.version_max, 9);
}

static void the_refusal_of_a_later_version_is_read_by_an_older_peer(void **state)
{
    (void)state;
    struct preamble refusal = {.kind = PREAMBLE_REFUSAL,
                               .version_min = 3,
                               .version_max = 4,
                               .reason = PREAMBLE_REFUSED_VERSION};
    uint8_t bytes[PREAMBLE_SIZE];
    preamble_encode(&refusal, bytes);
    struct preamble read;
    assert_int_equal(preamble_decode(bytes, &read), PREAMBLE_OK);
    assert_int_equal(read.version_min, 3);
    assert_int_equal(read.version_max, 4);
}

static void the_highest_common_version_is_chosen(void **state)
{
    (void)state;
    struct preamble peer = {.version_min = 1, .version_max = 200};
    assert_int_equal(preamble_common_version(&peer), PROTOCOL_VERSION_MAX);
    peer.version_min = PROTOCOL_VERSION_MAX;
    peer.version_max = PROTOCOL_VERSION_MAX;
    assert_int_equal(preamble_common_version(&peer), PROTOCOL_VERSION_MAX);
    peer.version_min = PROTOCOL_VERSION_MAX + 1;
    peer.version_max = 255;
    assert_int_equal(preamble_common_version(&peer), 0);
    peer.version_min = 0;
    peer.version_max = PROTOCOL_VERSION_MIN - 1;
    assert_int_equal(preamble_common_version(&peer), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_where_the_specification_says),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_stranger_is_told_apart_at_any_byte_of_the_magic),
        cmocka_unit_test(a_refusal_and_a_tls_record_differ_in_the_first_byte),
        cmocka_unit_test(a_field_outside_its_range_is_malformed),
        cmocka_unit_test(a_later_version_is_answered_even_when_it_uses_reserved_bytes),
        cmocka_unit_test(the_refusal_of_a_later_version_is_read_by_an_older_peer),
        cmocka_unit_test(the_highest_common_version_is_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
