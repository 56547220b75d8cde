/*
 * The handoff's functions by themselves: the good way step by step, and single transitions worth knowing. What becomes of both sides
 * together, whatever goes wrong around them: tests/model/.
 */
#include "agent/policy/handoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define NOW 100000u

static const struct handoff_word n1 = {.nonce = "n1"};
static const struct handoff_word copy = {.nonce = "", .refusal = 1, .copy = true};
static const struct handoff_word no_copy = {.nonce = "", .refusal = 1};

static unsigned source_step(struct handoff_source *source, enum source_input input)
{
    return handoff_source_step(source, input, input == SOURCE_IN_REFUSED ? &copy : &n1, NOW);
}

static unsigned destination_step(struct handoff_destination *destination,
                                 enum destination_input input)
{
    return handoff_destination_step(destination, input, &n1, NOW);
}

static void the_good_way(void **state)
{
    struct handoff_source source = {0};
    struct handoff_destination destination = {0};

    (void)state;
    assert_int_equal(source_step(&source, SOURCE_IN_PAUSED), 0);
    assert_true(handoff_source_can_roll_back(&source));
    assert_int_equal(destination_step(&destination, DESTINATION_IN_LOADED), DESTINATION_DO_JOURNAL);
    assert_int_equal(destination.record, DESTINATION_RECORD_LOADED);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_JOURNALED),
                     DESTINATION_DO_SEND_LOADED);
    handoff_destination_sent(&destination, "n1", NOW);
    assert_int_equal(source_step(&source, SOURCE_IN_LOADED), 0);
    assert_int_equal(source_step(&source, SOURCE_IN_COMPLETED), SOURCE_DO_JOURNAL);
    assert_int_equal(source.record, SOURCE_RECORD_COMMITTED);
    assert_false(handoff_source_can_roll_back(&source));
    assert_int_equal(source_step(&source, SOURCE_IN_JOURNALED), SOURCE_DO_SEND_COMMIT);
    assert_string_equal(source.nonce, "n1");
    assert_int_equal(destination_step(&destination, DESTINATION_IN_COMMIT), DESTINATION_DO_JOURNAL);
    assert_int_equal(destination.record, DESTINATION_RECORD_COMMITTED);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_JOURNALED), DESTINATION_DO_CONT);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_RUNNING),
                     DESTINATION_DO_OWN | DESTINATION_DO_SEND_OWNED);
    assert_int_equal(source_step(&source, SOURCE_IN_OWNED), SOURCE_DO_CLEAN);
    assert_int_equal(source_step(&source, SOURCE_IN_CLEANED), SOURCE_DO_SEND_DONE);
    assert_int_equal(destination_step(&destination, DESTINATION_IN_DONE),
                     DESTINATION_DO_END | DESTINATION_DO_SEND_DONE_ACK);
    assert_int_equal(source.state, SOURCE_ENDED);
    assert_int_equal(destination.state, DESTINATION_ENDED);
}

/* --- the source, one transition a line --- */

static void single_source_transitions(void **state)
{
    static const struct {
        struct handoff_source before;
        enum source_input input;
        const struct handoff_word *word;
        enum source_state after;
        unsigned actions;
        enum source_record record; /* when SOURCE_DO_JOURNAL */
    } cases[] = {
        /* The rescue: a QEMU that is dead is as good as one that has given everything away, and no failure but the peer's word ends it. */
        {{.state = SOURCE_PAUSED, .loaded = true},
         SOURCE_IN_QEMU_DEAD,
         NULL,
         SOURCE_COMMITTING,
         SOURCE_DO_JOURNAL,
         SOURCE_RECORD_COMMITTED},
        {{.state = SOURCE_PAUSED, .qemu_dead = true}, SOURCE_IN_FAILED, NULL, SOURCE_PAUSED, 0, 0},
        {{.state = SOURCE_PAUSED, .qemu_dead = true},
         SOURCE_IN_TIME,
         NULL,
         SOURCE_PAUSED,
         SOURCE_DO_SEND_QUERY,
         0},
        {{.state = SOURCE_PAUSED, .qemu_dead = true},
         SOURCE_IN_REFUSED,
         &copy,
         SOURCE_PAUSED,
         SOURCE_DO_SEND_TRY_AGAIN,
         0},
        {{.state = SOURCE_PAUSED, .qemu_dead = true},
         SOURCE_IN_REFUSED,
         &no_copy,
         SOURCE_ROLLING_BACK,
         SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT | SOURCE_DO_REPORT_LOST,
         0},
        /* A rollback of a paused guest is written down before it is resumed; of one that was never paused it need not be. */
        {{.state = SOURCE_OPEN},
         SOURCE_IN_FAILED,
         NULL,
         SOURCE_ROLLING_BACK,
         SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT,
         0},
        {{.state = SOURCE_PAUSED},
         SOURCE_IN_FAILED,
         NULL,
         SOURCE_RETAKING,
         SOURCE_DO_JOURNAL,
         SOURCE_RECORD_TAKING_BACK},
        {{.state = SOURCE_COMMITTING},
         SOURCE_IN_JOURNAL_FAILED,
         NULL,
         SOURCE_RETAKING,
         SOURCE_DO_JOURNAL,
         SOURCE_RECORD_TAKING_BACK},
        {{.state = SOURCE_RETAKING, .rolls_back = true},
         SOURCE_IN_JOURNAL_FAILED,
         NULL,
         SOURCE_ROLLING_BACK,
         SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT,
         0},
        /* After the commit nothing but the destination's word, or an operator's, changes anything. */
        {{.state = SOURCE_COMMITTED}, SOURCE_IN_FAILED, NULL, SOURCE_COMMITTED, 0, 0},
        {{.state = SOURCE_COMMITTED}, SOURCE_IN_UNKNOWN, NULL, SOURCE_COMMITTED, 0, 0},
        {{.state = SOURCE_COMMITTED},
         SOURCE_IN_RUNS_HERE,
         NULL,
         SOURCE_COMMITTED,
         SOURCE_DO_STOP,
         0},
        {{.state = SOURCE_COMMITTED},
         SOURCE_IN_LOADED,
         &n1,
         SOURCE_COMMITTED,
         SOURCE_DO_SEND_COMMIT,
         0},
        {{.state = SOURCE_COMMITTED, .held = true}, SOURCE_IN_LOADED, &n1, SOURCE_COMMITTED, 0, 0},
        {{.state = SOURCE_COMMITTED, .runs_here = true},
         SOURCE_IN_OWNED,
         NULL,
         SOURCE_CONFLICT,
         SOURCE_DO_STOP | SOURCE_DO_JOURNAL | SOURCE_DO_REPORT_CONFLICT,
         SOURCE_RECORD_CONFLICT},
        /* Refused: back to here; with QEMU dead, once more there. */
        {{.state = SOURCE_COMMITTED},
         SOURCE_IN_REFUSED,
         &copy,
         SOURCE_RETAKING,
         SOURCE_DO_JOURNAL,
         SOURCE_RECORD_TAKING_BACK},
        {{.state = SOURCE_COMMITTED, .qemu_dead = true},
         SOURCE_IN_REFUSED,
         &copy,
         SOURCE_TRYING_AGAIN,
         SOURCE_DO_JOURNAL,
         SOURCE_RECORD_TRY_AGAIN},
        {{.state = SOURCE_COMMITTED, .tried_again = 1},
         SOURCE_IN_REFUSED,
         &copy,
         SOURCE_COMMITTED,
         SOURCE_DO_SEND_TRY_AGAIN,
         0},
        {{.state = SOURCE_COMMITTED, .qemu_dead = true},
         SOURCE_IN_REFUSED,
         &no_copy,
         SOURCE_RETAKING,
         SOURCE_DO_JOURNAL,
         SOURCE_RECORD_TAKING_BACK},
        {{.state = SOURCE_TAKING_BACK, .destination_copy = true},
         SOURCE_IN_NOT_RESUMED,
         NULL,
         SOURCE_TRYING_AGAIN,
         SOURCE_DO_JOURNAL,
         SOURCE_RECORD_TRY_AGAIN},
        /* Taking back is written down, so without a copy there it is tried again here until it works. */
        {{.state = SOURCE_TAKING_BACK}, SOURCE_IN_NOT_RESUMED, NULL, SOURCE_TAKING_BACK, 0, 0},
        {{.state = SOURCE_TAKING_BACK},
         SOURCE_IN_TIME,
         NULL,
         SOURCE_TAKING_BACK,
         SOURCE_DO_TAKE_BACK,
         0},
        /* An operator decided for this host: no commit ever again, not even if the record may not be there. */
        {{.state = SOURCE_WITHDRAWN},
         SOURCE_IN_LOADED,
         &n1,
         SOURCE_WITHDRAWN,
         SOURCE_DO_SEND_ABORT,
         0},
        {{.state = SOURCE_WITHDRAWN, .resumed = true},
         SOURCE_IN_OWNED,
         NULL,
         SOURCE_CONFLICT,
         SOURCE_DO_STOP | SOURCE_DO_JOURNAL | SOURCE_DO_REPORT_CONFLICT,
         SOURCE_RECORD_CONFLICT},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct handoff_source source = cases[i].before;
        unsigned actions = handoff_source_step(&source, cases[i].input, cases[i].word, NOW);

        if (source.state != cases[i].after || actions != cases[i].actions ||
            ((actions & SOURCE_DO_JOURNAL) && source.record != cases[i].record)) {
            fail_msg("case %zu: state %d, actions %#x, record %d", i, (int)source.state, actions,
                     (int)source.record);
        }
    }
}

static void a_withdrawal_that_may_be_written_is_held(void **state)
{
    struct handoff_source source = {.state = SOURCE_WITHDRAWING};

    (void)state;
    assert_int_equal(source_step(&source, SOURCE_IN_JOURNAL_FAILED), 0);
    assert_int_equal(source.state, SOURCE_COMMITTED);
    assert_int_equal(source_step(&source, SOURCE_IN_LOADED), 0);
}

static void run_here_waits_until_no_commit_counts(void **state)
{
    struct handoff_source source = {.state = SOURCE_COMMITTED, .commit_sent_ms = NOW};
    const uint64_t last = NOW + HANDOFF_COMMIT_VALIDITY_MS + HANDOFF_MARGIN_MS;
    uint64_t wait_ms;

    (void)state;
    assert_int_equal(handoff_source_run_here(&source, last, &wait_ms), HANDOFF_MUST_WAIT);
    assert_int_equal(wait_ms, 1);
    assert_int_equal(handoff_source_run_here(&source, last + 1, &wait_ms), HANDOFF_MAY);
    source.state = SOURCE_CONFLICT;
    assert_int_equal(handoff_source_run_here(&source, last, &wait_ms), HANDOFF_OTHER_SIDE);
    source.state = SOURCE_PAUSED;
    assert_int_equal(handoff_source_run_here(&source, last, &wait_ms), HANDOFF_NOT_NOW);
}

/* --- the destination --- */

static void a_commit_counts_for_its_nonce_and_for_its_time_only(void **state)
{
    static const struct {
        uint64_t now;
        const char *nonce;
        unsigned wanted;
    } cases[] = {
        {5000, "n1", DESTINATION_DO_JOURNAL},
        {5000 + HANDOFF_COMMIT_VALIDITY_MS, "n1", DESTINATION_DO_JOURNAL},
        {5001 + HANDOFF_COMMIT_VALIDITY_MS, "n1", DESTINATION_DO_SEND_LOADED},
        {4999, "n1", DESTINATION_DO_SEND_LOADED}, /* another boot's clock */
        {5000, "n2", 0},
        {5000, "n", 0},
        {5000, "", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct handoff_destination destination = {.state = DESTINATION_LOADED};
        struct handoff_word word = {.nonce = ""};

        assert_int_equal(handoff_destination_step(&destination, DESTINATION_IN_COMMIT, &word, 5000),
                         0);
        handoff_destination_sent(&destination, "n1", 5000);
        word.nonce = cases[i].nonce;
        assert_int_equal(
            handoff_destination_step(&destination, DESTINATION_IN_COMMIT, &word, cases[i].now),
            cases[i].wanted);
    }
}

static void single_destination_transitions(void **state)
{
    static const struct {
        struct handoff_destination before;
        enum destination_input input;
        enum destination_state after;
        unsigned actions;
    } cases[] = {
        /* Before LOADED it gives up by itself, afterwards it does not. */
        {{.state = DESTINATION_PREPARING},
         DESTINATION_IN_FAILED,
         DESTINATION_ABANDONED,
         DESTINATION_DO_ABANDON},
        {{.state = DESTINATION_LOADED}, DESTINATION_IN_FAILED, DESTINATION_LOADED, 0},
        /* A commit that waited for the disk too long is refused: the journal says by now that the guest may have run. */
        {{.state = DESTINATION_COMMITTING, .nonce = "n1"},
         DESTINATION_IN_JOURNALED,
         DESTINATION_REFUSING,
         DESTINATION_DO_JOURNAL},
        {{.state = DESTINATION_COMMITTING, .forced = true},
         DESTINATION_IN_JOURNALED,
         DESTINATION_STARTING,
         DESTINATION_DO_CONT},
        /* One record at a time. */
        {{.state = DESTINATION_COMMITTING}, DESTINATION_IN_QEMU_DEAD, DESTINATION_COMMITTING, 0},
        {{.state = DESTINATION_COMMITTING, .qemu_dead = true},
         DESTINATION_IN_JOURNALED,
         DESTINATION_REFUSING,
         DESTINATION_DO_JOURNAL},
        /* Silence is no refusal: the guest may have run, and shut down. */
        {{.state = DESTINATION_STARTING},
         DESTINATION_IN_QEMU_DEAD,
         DESTINATION_OWNED,
         DESTINATION_DO_OWN | DESTINATION_DO_SEND_OWNED},
        {{.state = DESTINATION_STARTING},
         DESTINATION_IN_CONT_REFUSED,
         DESTINATION_REFUSING,
         DESTINATION_DO_JOURNAL},
        /* Once it may have run nothing is a refusal any more. */
        {{.state = DESTINATION_STARTING, .may_have_run = true},
         DESTINATION_IN_CONT_REFUSED,
         DESTINATION_LOADED,
         0},
        {{.state = DESTINATION_COMMITTING, .may_have_run = true},
         DESTINATION_IN_JOURNAL_FAILED,
         DESTINATION_LOADED,
         0},
        {{.state = DESTINATION_LOADED, .may_have_run = true},
         DESTINATION_IN_QEMU_DEAD,
         DESTINATION_OWNED,
         DESTINATION_DO_OWN | DESTINATION_DO_SEND_OWNED},
        {{.state = DESTINATION_LOADED, .may_have_run = true},
         DESTINATION_IN_RESUMED_EARLY,
         DESTINATION_OWNED,
         DESTINATION_DO_OWN | DESTINATION_DO_SEND_OWNED},
        {{.state = DESTINATION_LOADED},
         DESTINATION_IN_RESUMED_EARLY,
         DESTINATION_REFUSING,
         DESTINATION_DO_JOURNAL | DESTINATION_DO_KILL_QEMU},
        /* Refused: told when it is on the disk; ended by the source, or by an operator, who keeps the images. */
        {{.state = DESTINATION_REFUSING},
         DESTINATION_IN_JOURNALED,
         DESTINATION_REFUSED,
         DESTINATION_DO_SEND_REFUSED},
        {{.state = DESTINATION_REFUSED},
         DESTINATION_IN_TAKEN_BACK,
         DESTINATION_ABANDONED,
         DESTINATION_DO_ABANDON},
        {{.state = DESTINATION_REFUSED, .qemu_dead = true},
         DESTINATION_IN_GIVE_UP,
         DESTINATION_ABANDONED,
         DESTINATION_DO_ABANDON | DESTINATION_DO_KEEP_IMAGES},
        {{.state = DESTINATION_CONFLICT},
         DESTINATION_IN_GIVE_UP,
         DESTINATION_ABANDONED,
         DESTINATION_DO_ABANDON | DESTINATION_DO_KEEP_IMAGES | DESTINATION_DO_KILL_QEMU},
        /* What an operator started here goes on only while the source does not want it. */
        {{.state = DESTINATION_OWNED},
         DESTINATION_IN_ABORT,
         DESTINATION_OWNED,
         DESTINATION_DO_SEND_OWNED},
        {{.state = DESTINATION_OWNED, .forced = true},
         DESTINATION_IN_ABORT,
         DESTINATION_CONFLICT,
         DESTINATION_DO_STOP | DESTINATION_DO_JOURNAL | DESTINATION_DO_REPORT_CONFLICT},
        {{.state = DESTINATION_COMMITTING, .forced = true},
         DESTINATION_IN_ABORT,
         DESTINATION_ABANDONED,
         DESTINATION_DO_ABANDON},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct handoff_destination destination = cases[i].before;
        unsigned actions = destination_step(&destination, cases[i].input);

        if (destination.state != cases[i].after || actions != cases[i].actions) {
            fail_msg("case %zu: state %d, actions %#x", i, (int)destination.state, actions);
        }
    }
}

static void try_again_names_the_refusal(void **state)
{
    struct handoff_destination destination = {.state = DESTINATION_REFUSED, .refusals = 2};
    struct handoff_word word = {.refusal = 1};

    (void)state;
    assert_int_equal(handoff_destination_step(&destination, DESTINATION_IN_TRY_AGAIN, &word, NOW),
                     0);
    word.refusal = 2;
    assert_int_equal(handoff_destination_step(&destination, DESTINATION_IN_TRY_AGAIN, &word, NOW),
                     DESTINATION_DO_SEND_LOADED);
    assert_int_equal(destination.state, DESTINATION_LOADED);
}

/* --- after a restart --- */

static void a_source_recovers(void **state)
{
    static const struct {
        struct handoff_source_journal journal;
        struct handoff_source_found found;
        enum source_state after;
        unsigned actions;
        bool held;
    } cases[] = {
        {{.begun = true}, {0}, SOURCE_ROLLING_BACK, SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT, 0},
        {{.begun = true, .paused = true}, {0}, SOURCE_RETAKING, SOURCE_DO_JOURNAL, 0},
        {{.begun = true, .paused = true}, {.qemu_dead = true}, SOURCE_PAUSED, 0, 0},
        {{.begun = true, .paused = true},
         {.qemu_dead = true, .guest_runs = true},
         SOURCE_RETAKING,
         SOURCE_DO_JOURNAL,
         0},
        {{.begun = true, .paused = true, .taking_back = true},
         {.qemu_dead = true},
         SOURCE_ROLLING_BACK,
         SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT | SOURCE_DO_REPORT_LOST,
         0},
        {{.begun = true, .committed = true}, {0}, SOURCE_COMMITTED, 0, false},
        {{.begun = true, .committed = true}, {.guest_runs = true}, SOURCE_COMMITTED, 0, true},
        {{.begun = true, .committed = true}, {.unmarked = true}, SOURCE_COMMITTED, 0, true},
        {{.begun = true, .committed = true, .given_up = true},
         {0},
         SOURCE_COMMITTED,
         SOURCE_DO_QUIT_QEMU,
         false},
        {{.begun = true, .committed = true, .taking_back = true},
         {0},
         SOURCE_TAKING_BACK,
         SOURCE_DO_TAKE_BACK,
         false},
        {{.begun = true, .committed = true, .withdrawn = true},
         {0},
         SOURCE_WITHDRAWN,
         SOURCE_DO_TAKE_BACK,
         false},
        {{.begun = true, .committed = true, .withdrawn = true, .conflict = true},
         {0},
         SOURCE_CONFLICT,
         0,
         false},
        {{.begun = true, .committed = true, .done = true},
         {.qemu_dead = true},
         SOURCE_ENDED,
         0,
         false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct handoff_source source = {0};
        unsigned actions = handoff_source_recover(&source, &cases[i].journal, &cases[i].found, NOW);

        if (source.state != cases[i].after || actions != cases[i].actions ||
            source.held != cases[i].held) {
            fail_msg("case %zu: state %d, actions %#x", i, (int)source.state, actions);
        }
        assert_int_equal(source.commit_sent_ms, NOW);
    }
}

static void a_destination_recovers(void **state)
{
    static const struct {
        enum destination_record last;
        enum destination_found found;
        enum destination_state after;
        unsigned actions;
    } cases[] = {
        {DESTINATION_RECORD_BEGIN, FOUND_GUEST_PAUSED, DESTINATION_ABANDONED,
         DESTINATION_DO_ABANDON},
        {DESTINATION_RECORD_LOADED, FOUND_GUEST_PAUSED, DESTINATION_LOADED, 0},
        {DESTINATION_RECORD_LOADED, FOUND_QEMU_DEAD, DESTINATION_REFUSING, DESTINATION_DO_JOURNAL},
        {DESTINATION_RECORD_LOADED, FOUND_GUEST_RUNS, DESTINATION_REFUSING,
         DESTINATION_DO_JOURNAL | DESTINATION_DO_KILL_QEMU},
        {DESTINATION_RECORD_COMMITTED, FOUND_GUEST_PAUSED, DESTINATION_LOADED, 0},
        {DESTINATION_RECORD_COMMITTED, FOUND_QEMU_DEAD, DESTINATION_OWNED,
         DESTINATION_DO_OWN | DESTINATION_DO_SEND_OWNED},
        {DESTINATION_RECORD_COMMITTED, FOUND_GUEST_RUNS, DESTINATION_OWNED,
         DESTINATION_DO_OWN | DESTINATION_DO_SEND_OWNED},
        {DESTINATION_RECORD_REFUSED, FOUND_GUEST_PAUSED, DESTINATION_REFUSED, 0},
        {DESTINATION_RECORD_REFUSED, FOUND_GUEST_RUNS, DESTINATION_REFUSED,
         DESTINATION_DO_KILL_QEMU},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct handoff_destination_journal journal = {.begun = true, .last = cases[i].last};
        struct handoff_destination destination = {0};
        unsigned actions = handoff_destination_recover(&destination, &journal, cases[i].found);

        if (destination.state != cases[i].after || actions != cases[i].actions) {
            fail_msg("case %zu: state %d, actions %#x", i, (int)destination.state, actions);
        }
        assert_int_equal(destination.nonce[0], '\0');
    }
}

/* --- the journals --- */

static void record_names_are_told_apart(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SOURCE_RECORD_COUNT; i++) {
        assert_int_equal(handoff_source_record_by_name(handoff_source_record_name(i)), i);
    }
    for (unsigned i = 0; i < DESTINATION_RECORD_COUNT; i++) {
        assert_int_equal(handoff_destination_record_by_name(handoff_destination_record_name(i)), i);
    }
    assert_int_equal(handoff_source_record_by_name("mark"), SOURCE_RECORD_COUNT);
    assert_int_equal(handoff_destination_record_by_name("prepared"), DESTINATION_RECORD_COUNT);
}

/* The answer after each record. */
static void who_may_start_it(void **state)
{
    static const struct {
        enum source_record record;
        enum handoff_start start;
    } source[][6] = {
        {{SOURCE_RECORD_BEGIN, START_UNDER_WAY},
         {SOURCE_RECORD_PAUSED, START_UNDER_WAY},
         {SOURCE_RECORD_COMMITTED, START_HANDED_OVER},
         {SOURCE_RECORD_DONE, START_MOVED_AWAY},
         {SOURCE_RECORD_ACKNOWLEDGED, START_MOVED_AWAY}},
        {{SOURCE_RECORD_BEGIN, START_UNDER_WAY},
         {SOURCE_RECORD_PAUSED, START_UNDER_WAY},
         {SOURCE_RECORD_TAKING_BACK, START_UNDER_WAY},
         {SOURCE_RECORD_ROLLED_BACK, START_STAYED_HERE}},
        {{SOURCE_RECORD_BEGIN, START_UNDER_WAY},
         {SOURCE_RECORD_COMMITTED, START_HANDED_OVER},
         {SOURCE_RECORD_TAKING_BACK, START_HANDED_OVER},
         {SOURCE_RECORD_TAKEN_BACK, START_TAKEN_BACK},
         {SOURCE_RECORD_ROLLED_BACK, START_TAKEN_BACK}},
        {{SOURCE_RECORD_BEGIN, START_UNDER_WAY},
         {SOURCE_RECORD_COMMITTED, START_HANDED_OVER},
         {SOURCE_RECORD_WITHDRAWN, START_WITHDRAWN},
         {SOURCE_RECORD_CONFLICT, START_CONFLICT}},
    };
    static const struct {
        enum destination_record record;
        enum handoff_start start;
    } destination[][6] = {
        {{DESTINATION_RECORD_BEGIN, START_UNDECIDED},
         {DESTINATION_RECORD_LOADED, START_UNDECIDED},
         {DESTINATION_RECORD_COMMITTED, START_UNDECIDED},
         {DESTINATION_RECORD_OWNED, START_CAME_HERE},
         {DESTINATION_RECORD_CONFLICT, START_CONFLICT},
         {DESTINATION_RECORD_ABANDONED, START_SAYS_NOTHING}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(source); i++) {
        struct handoff_source_journal journal = {0};

        assert_int_equal(handoff_source_may_start(&journal, false), START_SAYS_NOTHING);
        for (size_t j = 0; j < COUNT(source[i]) && source[i][j].start; j++) {
            handoff_source_journal_add(&journal, source[i][j].record, 0);
            assert_int_equal(handoff_source_may_start(&journal, false), source[i][j].start);
        }
    }
    for (size_t i = 0; i < COUNT(destination); i++) {
        struct handoff_destination_journal journal = {0};

        for (size_t j = 0; j < COUNT(destination[i]); j++) {
            handoff_destination_journal_add(&journal, destination[i][j].record, 0);
            assert_int_equal(handoff_destination_may_start(&journal), destination[i][j].start);
        }
    }
    assert_true(handoff_start_allowed(START_CAME_HERE));
    assert_false(handoff_start_allowed(START_RESUMES));
    assert_false(handoff_start_allowed(START_UNDER_WAY));
}

/* Two QEMUs on the same disks: the one that is about to be resumed, and the one that asked. */
static void one_that_is_resumed_may_not_start_a_second_time(void **state)
{
    struct handoff_source_journal journal = {.begun = true, .committed = true};

    (void)state;
    journal.withdrawn = true;
    assert_int_equal(handoff_source_may_start(&journal, true), START_RESUMES);
    assert_int_equal(handoff_source_may_start(&journal, false), START_WITHDRAWN);
    journal.conflict = true;
    assert_int_equal(handoff_source_may_start(&journal, true), START_CONFLICT);
    /* `cont` may have been refused before, and is said again. */
    journal = (struct handoff_source_journal){.begun = true, .withdrawn = true, .taken_back = true};
    assert_int_equal(handoff_source_may_start(&journal, true), START_RESUMES);
    assert_int_equal(handoff_source_may_start(&journal, false), START_TAKEN_BACK);
    /* All is put back: who starts it finds it running. */
    journal.rolled_back = true;
    assert_int_equal(handoff_source_may_start(&journal, true), START_TAKEN_BACK);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_good_way),
        cmocka_unit_test(single_source_transitions),
        cmocka_unit_test(a_withdrawal_that_may_be_written_is_held),
        cmocka_unit_test(run_here_waits_until_no_commit_counts),
        cmocka_unit_test(a_commit_counts_for_its_nonce_and_for_its_time_only),
        cmocka_unit_test(single_destination_transitions),
        cmocka_unit_test(try_again_names_the_refusal),
        cmocka_unit_test(a_source_recovers),
        cmocka_unit_test(a_destination_recovers),
        cmocka_unit_test(record_names_are_told_apart),
        cmocka_unit_test(who_may_start_it),
        cmocka_unit_test(one_that_is_resumed_may_not_start_a_second_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
