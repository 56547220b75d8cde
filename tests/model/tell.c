/* A history, told to a person. */
#include "explore.h"

#include "agent/policy/handoff_names.h"

#include <string.h>

static const char *const kinds[] = {
    [COMMIT] = "commit",         [ABORT] = "abort",         [QUERY] = "query",
    [TAKEN_BACK] = "taken-back", [TRY_AGAIN] = "try-again", [DONE] = "done",
    [LOADED] = "loaded",         [OWNED] = "owned",         [REFUSED] = "refused",
    [ABORTED] = "aborted",       [UNKNOWN] = "unknown",     [DONE_ACK] = "done-ack",
};

static const char *const sentences[E_COUNT] = {
    [E_PAUSE] = "source: the guest is paused",
    [E_STREAM] = "source: its QEMU has given everything away",
    [E_COMPLETED] = "source: hears that its QEMU has completed",
    [E_LOAD] = "destination: its QEMU has loaded everything",
    [E_S_JOURNALED] = "source: the journal is synced",
    [E_D_JOURNALED] = "destination: the journal is synced",
    [E_D_CONT] = "destination: its QEMU obeys `cont`",
    [E_D_CONT_ANSWER] = "destination: hears that `cont` was obeyed",
    [E_CLEANED] = "source: has tidied up; DONE is being written",
    [E_S_NAMES] = "source: the disks have their old names",
    [E_S_CONT] = "source: its QEMU obeys `cont`",
    [E_S_BACK] = "source: hears that the VM is back as it was",
    [E_S_ROLLED_BACK] = "source: everything is put back; ROLLED_BACK is written",
    [E_S_DEATH_HEARD] = "source: hears that its QEMU is dead",
    [E_S_RESUME_HEARD] = "source: hears that somebody resumed the guest",
    [E_S_TIME] = "source: the clock that asks again",
    [E_S_START] = "source: the daemon is started, and recovers",
    [E_S_HANG_UP] = "source: done-ack does not come; hangs up, to try again later",
    [E_D_CUT] = "destination: the data stops coming",
    [E_D_REMOVE] = "destination: what was made is removed; ABANDONED is being written",
    [E_D_DEATH_HEARD] = "destination: hears that its QEMU is dead",
    [E_D_RESUME_HEARD] = "destination: hears that somebody resumed its copy",
    [E_D_TIME] = "destination: the clock that tries again",
    [E_D_START] = "destination: the daemon is started, and recovers",
    [E_D_LOSS_HEARD] = "destination: hears that the connection is gone",
    [E_LINK_UP] = "source: connects",
    [E_LINK_DOWN_HEARD] = "source: hears that the connection is gone",
    [E_TIME] = "5 s pass",
    [E_DROP] = "the connection breaks",
    [E_D_DROP] = "the destination's end of the connection breaks",
    [E_S_FAIL] = "source: something fails (a mover, a clock, a cancel)",
    [E_D_FAIL] = "destination: something fails",
    [E_S_JOURNAL_FAILS] = "source: the journal cannot be synced",
    [E_D_JOURNAL_FAILS] = "destination: the journal cannot be synced",
    [E_S_CONT_REFUSED] = "source: its QEMU refuses to `cont`",
    [E_D_CONT_REFUSED] = "destination: its QEMU refuses to `cont`",
    [E_S_CRASH] = "source: the daemon dies",
    [E_D_CRASH] = "destination: the daemon dies",
    [E_S_REBOOT] = "source: the host is reset",
    [E_D_REBOOT] = "destination: the host is reset",
    [E_S_QEMU_DIES] = "source: its QEMU dies",
    [E_D_QEMU_DIES] = "destination: its QEMU dies",
    [E_S_COLD_DIES] = "source: the VM that was started from its disks ends",
    [E_D_COLD_DIES] = "destination: the VM that was started from its disks ends",
    [E_S_STRAY] = "source: somebody says `cont` to its QEMU",
    [E_D_STRAY] = "destination: somebody says `cont` to its QEMU",
    [E_D_STOPS] = "destination: the running guest is stopped (an I/O error)",
    [E_S_SKEW] = "5 s pass by the source's clock, none by the destination's",
    [E_D_SKEW] = "5 s pass by the destination's clock, none by the source's",
    [E_D_FORGET] = "destination: its state directory is lost, and its QEMU",
    [E_S_AUTOSTART] = "source: may-start says yes; the VM is started from its disks",
    [E_D_AUTOSTART] = "destination: may-start says yes; the VM is started from its disks",
    [E_UNINFORMED] = "source: an operator who has not looked says `resolve --run-here`",
    [E_S_RUN_HERE] = "source: an operator says `resolve --run-here`",
    [E_S_GIVE_UP] = "source: an operator says `resolve --give-up`",
    [E_D_RUN_HERE] = "destination: an operator says `resolve --run-here --source-is-off`",
    [E_D_GIVE_UP] = "destination: an operator says `resolve --give-up`",
};

static void tell_message(FILE *out, const struct message *message, const struct nonce_names *names)
{
    fprintf(out, "%s", kinds[message->kind]);
    if (message->kind == COMMIT || message->kind == LOADED) {
        fprintf(out, " n%u", names ? names->names[message->value] : message->value);
    } else if (message->kind == REFUSED || message->kind == TRY_AGAIN) {
        fprintf(out, " %u%s", message->value,
                message->kind == TRY_AGAIN ? ""
                : message->copy            ? " (with a copy)"
                                           : " (no copy)");
    }
}

static void tell_survivor(FILE *out, const struct world *before, const struct nonce_names *names,
                          unsigned survivor)
{
    if (survivor) {
        fprintf(out, "; in a buffer stays ");
        tell_message(out, &before->to_destination[survivor - 1], names);
    }
}

void tell_event(FILE *out, const struct world *before, const struct nonce_names *names,
                enum event event, unsigned argument)
{
    switch (event) {
    case E_RECEIVE:
        fprintf(out, "source: ");
        tell_message(out, &before->to_source[0], names);
        fprintf(out, " arrives");
        return;
    case E_DELIVER:
    case E_DOUBLE:
        fprintf(out, "destination: ");
        tell_message(out, &before->to_destination[argument], names);
        fprintf(out, " arrives%s%s",
                before->to_destination[argument].old ? ", of an earlier connection" : "",
                event == E_DOUBLE ? ", and will once more" : "");
        return;
    default:
        break;
    }
    fprintf(out, "%s", sentences[event]);
    if (event == E_DROP || event == E_S_CRASH || event == E_S_ROLLED_BACK || event == E_S_HANG_UP ||
        event == E_LINK_DOWN_HEARD) {
        tell_survivor(out, before, names, argument);
    } else if (event == E_S_REBOOT) {
        fprintf(out, "; of the unsynced records %u stay", argument % (UNSYNCED_MAX + 1));
        tell_survivor(out, before, names, argument / (UNSYNCED_MAX + 1) / 2);
    } else if (event == E_D_REBOOT) {
        fprintf(out, "; of the unsynced records %u stay", argument);
    } else if (event == E_S_JOURNAL_FAILS || event == E_D_JOURNAL_FAILS) {
        fprintf(out, argument ? ", but has the record" : ", and has not the record");
    }
}

static bool is_writing(const struct record *records, unsigned count)
{
    return record_in_sync(records, count) < count;
}

void tell_change(FILE *out, const struct world *before, const struct world *after)
{
    const struct source_host *source = &after->source;
    const struct destination_host *destination = &after->destination;

    if (source->up &&
        (!before->source.up || before->source.handoff.state != source->handoff.state)) {
        fprintf(out, " -> source %s", handoff_source_state_name(source->handoff.state));
        if (is_writing(source->unsynced, source->unsynced_count)) {
            fprintf(
                out, " (%s is being written)",
                handoff_source_record_name(source->unsynced[source->unsynced_count - 1].record));
        }
    }
    if (destination->up && (!before->destination.up ||
                            before->destination.handoff.state != destination->handoff.state)) {
        fprintf(out, " -> destination %s",
                handoff_destination_state_name(destination->handoff.state));
        if (is_writing(destination->unsynced, destination->unsynced_count)) {
            fprintf(out, " (%s is being written)",
                    handoff_destination_record_name(
                        destination->unsynced[destination->unsynced_count - 1].record));
        }
    }
}

static const char *qemu_word(enum qemu qemu)
{
    static const char *const words[] = {[QEMU_DEAD] = "dead",
                                        [QEMU_LOADING] = "loading",
                                        [QEMU_PAUSED] = "paused",
                                        [QEMU_POSTMIGRATE] = "postmigrate",
                                        [QEMU_RUNNING] = "running"};

    return words[qemu];
}

static void tell_messages(FILE *out, const char *to, const struct message *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        fprintf(out, "%s%s ", i == 0 ? to : ", ", list[i].old ? " (old)" : "");
        tell_message(out, &list[i], NULL);
    }
}

void tell_world(FILE *out, const struct world *world)
{
    const struct source_host *source = &world->source;
    const struct destination_host *destination = &world->destination;
    static const char *const links[] = {"down", "closed by the destination", "up"};

    fprintf(
        out, "  = source: daemon %s, QEMU %s%s%s%s%s; destination: daemon %s%s, QEMU %s%s%s%s; ",
        source->up ? handoff_source_state_name(source->handoff.state) : "dead",
        qemu_word(source->qemu), source->stray ? " (stray)" : "",
        source->cold ? ", started from its disks" : "", source->newest ? ", newest" : "",
        source->marks == MARKS_OFF ? "" : ", marked",
        destination->up ? handoff_destination_state_name(destination->handoff.state) : "dead",
        destination->forgotten ? " (has lost its journal)" : "", qemu_word(destination->qemu),
        destination->stray ? " (stray)" : "", destination->cold ? ", started from its disks" : "",
        destination->newest ? ", newest" : "");
    fprintf(out, "link %s", links[world->link]);
    tell_messages(out, "; to the destination:", world->to_destination, world->to_destination_count);
    tell_messages(out, "; to the source:", world->to_source, world->to_source_count);
    fprintf(out, "\n");
}
