/*
 * The handoff's two transition functions, each by itself: the good way step by step, and what no
 * input may do in any state. Both driven together: test_handoff_together.c.
 */
#include "agent/policy/handoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static unsigned source_step(struct handoff_source *source, enum source_input input)
{
    return handoff_source_step(source, input, input == SOURCE_IN_LOADED ? "n1" : NULL);
}

static unsigned destination_step(struct handoff_destination *destination,
                                 enum destination_input input, uint64_t now_ms)
{
    return handoff_destination_step(destination, input,
                                    input == DESTINATION_IN_COMMIT ? "n1" : NULL, now_ms);
}

static void the_good_way(void **state)
{
    struct handoff_source source = {0};
    struct handoff_destination destination = {0};

    (void)state;
    assert_true(handoff_source_can_roll_back(&source));
    assert_int_equal(source_step(&source, SOURCE_IN_PAUSED), 0);
    assert_true(handoff_source_can_roll_back(&source));
    assert_int_equal(destination_step(&destination, DESTINATION_IN_LOADED, 0),
                     DESTINATION_DO_JOURNAL_LOADED);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_JOURNALED, 0),
                     DESTINATION_DO_SEND_LOADED);
    handoff_destination_sent(&destination, "n1", 1000);
    assert_int_equal(source_step(&source, SOURCE_IN_LOADED), 0);
    assert_int_equal(source_step(&source, SOURCE_IN_COMPLETED), SOURCE_DO_COMMIT);
    assert_false(handoff_source_can_roll_back(&source));
    assert_int_equal(source_step(&source, SOURCE_IN_JOURNALED), SOURCE_DO_SEND_COMMIT);
    assert_string_equal(source.nonce, "n1");
    assert_int_equal(destination_step(&destination, DESTINATION_IN_COMMIT, 2000),
                     DESTINATION_DO_JOURNAL_COMMITTED);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_JOURNALED, 2000),
                     DESTINATION_DO_CONT);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_RUNNING, 2000),
                     DESTINATION_DO_JOURNAL_OWNED | DESTINATION_DO_SEND_OWNED);
    assert_int_equal(source_step(&source, SOURCE_IN_OWNED), SOURCE_DO_CLEAN);
    assert_int_equal(source_step(&source, SOURCE_IN_CLEANED), SOURCE_DO_SEND_DONE);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_DONE, 2000),
                     DESTINATION_DO_JOURNAL_DONE | DESTINATION_DO_SEND_DONE_ACK);
    assert_int_equal(source.state, SOURCE_ENDED);
    assert_int_equal(destination.state, DESTINATION_ENDED);
}

static void a_dead_source_is_rescued_by_the_loaded_copy(void **state)
{
    (void)state;
    for (int loaded_first = 0; loaded_first < 2; loaded_first++) {
        struct handoff_source source = {.state = SOURCE_PAUSED};

        source_step(&source, loaded_first ? SOURCE_IN_LOADED : SOURCE_IN_QEMU_DEAD);
        assert_int_equal(
            source_step(&source, loaded_first ? SOURCE_IN_QEMU_DEAD : SOURCE_IN_LOADED),
            SOURCE_DO_COMMIT);
    }
}

static void a_commit_counts_for_its_nonce_and_for_its_time_only(void **state)
{
    static const struct {
        uint64_t now;
        const char *nonce;
        unsigned wanted;
    } cases[] = {
        {5000, "n1", DESTINATION_DO_JOURNAL_COMMITTED},
        {5000 + HANDOFF_COMMIT_VALIDITY_MS, "n1", DESTINATION_DO_JOURNAL_COMMITTED},
        {5001 + HANDOFF_COMMIT_VALIDITY_MS, "n1", DESTINATION_DO_SEND_LOADED},
        {UINT64_MAX, "n1", DESTINATION_DO_SEND_LOADED},
        {4999, "n1", DESTINATION_DO_SEND_LOADED}, /* another boot's clock */
        {5000, "n2", 0},
        {5000, "n", 0},
        {5000, "", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct handoff_destination destination = {.state = DESTINATION_LOADED};

        assert_int_equal(handoff_destination_step(&destination, DESTINATION_IN_COMMIT, "", 0), 0);
        handoff_destination_sent(&destination, "n1", 5000);
        assert_int_equal(handoff_destination_step(&destination, DESTINATION_IN_COMMIT,
                                                  cases[i].nonce, cases[i].now),
                         cases[i].wanted);
    }
}

static void a_commit_that_waited_for_the_journal_too_long_is_not_obeyed(void **state)
{
    struct handoff_destination destination = {.state = DESTINATION_LOADED};

    (void)state;
    handoff_destination_sent(&destination, "n1", 0);
    destination_step(&destination, DESTINATION_IN_COMMIT, HANDOFF_COMMIT_VALIDITY_MS);
    assert_int_equal(
        destination_step(&destination, DESTINATION_IN_JOURNALED, HANDOFF_COMMIT_VALIDITY_MS + 1),
        DESTINATION_DO_SEND_LOADED);
    assert_int_equal(destination.state, DESTINATION_LOADED);
}

/* What a step may do, seen from the state it was taken in. */
static void every_input_in_every_source_state(void **state)
{
    (void)state;
    for (int i = 0; i < (SOURCE_ENDED + 1) * (SOURCE_IN_LINK_UP + 1) * 8; i++) {
        struct handoff_source source = {.state = i / 8 % (SOURCE_ENDED + 1),
                                        .loaded = i & 1,
                                        .completed = i & 2,
                                        .qemu_dead = i & 4,
                                        .nonce = "n0"};
        enum source_state before = source.state;
        enum source_input input = i / 8 / (SOURCE_ENDED + 1);
        unsigned actions = source_step(&source, input);

        if (actions & SOURCE_DO_SEND_COMMIT) {
            assert_int_equal(source.state, SOURCE_COMMITTED);
            assert_true(before == SOURCE_COMMITTED || input == SOURCE_IN_JOURNALED);
        }
        if (before == SOURCE_COMMITTED) {
            assert_false(actions & (SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT));
        }
        if (actions & SOURCE_DO_ROLL_BACK) {
            assert_int_equal(source.state, SOURCE_ROLLING_BACK);
            assert_true(before <= SOURCE_COMMITTING || input == SOURCE_IN_TAKEN_BACK);
        }
        if (actions & SOURCE_DO_CLEAN) {
            assert_int_equal(input, SOURCE_IN_OWNED);
        }
        if (before == SOURCE_LOST || before == SOURCE_ENDED) {
            assert_int_equal(actions, 0);
            assert_int_equal(source.state, before);
        }
    }
}

static void every_input_in_every_destination_state(void **state)
{
    (void)state;
    for (int i = 0; i < (DESTINATION_ENDED + 1) * (DESTINATION_IN_DONE + 1) * 4; i++) {
        struct handoff_destination destination = {.state = i / 4 % (DESTINATION_ENDED + 1),
                                                  .qemu_dead = i & 1};
        enum destination_state before = destination.state;
        enum destination_input input = i / 4 / (DESTINATION_ENDED + 1);
        unsigned actions;

        handoff_destination_sent(&destination, i & 2 ? "n1" : "n2", 0);
        actions = destination_step(&destination, input, 1);
        if (actions & DESTINATION_DO_CONT) {
            assert_int_equal(before, DESTINATION_COMMITTING);
            assert_int_equal(input, DESTINATION_IN_JOURNALED);
        }
        if (actions & DESTINATION_DO_JOURNAL_COMMITTED) {
            assert_int_equal(before, DESTINATION_LOADED);
            assert_true(input == DESTINATION_IN_COMMIT && i & 2);
        }
        if (actions & DESTINATION_DO_JOURNAL_REFUSED) {
            assert_true(before == DESTINATION_LOADED || before == DESTINATION_COMMITTING ||
                        (before == DESTINATION_STARTING && input == DESTINATION_IN_CONT_REFUSED));
        }
        if (actions & DESTINATION_DO_ABANDON) {
            assert_true(before <= DESTINATION_LOADED || before == DESTINATION_REFUSED);
            assert_true(before < DESTINATION_LOADED || input == DESTINATION_IN_ABORT ||
                        input == DESTINATION_IN_TAKEN_BACK);
        }
        if (before == DESTINATION_ABANDONED || before == DESTINATION_ENDED) {
            assert_int_equal(actions, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_good_way),
        cmocka_unit_test(a_dead_source_is_rescued_by_the_loaded_copy),
        cmocka_unit_test(a_commit_counts_for_its_nonce_and_for_its_time_only),
        cmocka_unit_test(a_commit_that_waited_for_the_journal_too_long_is_not_obeyed),
        cmocka_unit_test(every_input_in_every_source_state),
        cmocka_unit_test(every_input_in_every_destination_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
