/*
 * The words for where a migration stands, in their order at the source. They are a contract: scripts see them in events and status.
 */
#ifndef WATARI_POLICY_PHASE_H
#define WATARI_POLICY_PHASE_H

#define PHASE_PREFLIGHT "preflight" /* the VM is looked at; the peer is dialled */
#define PHASE_PREPARE "prepare" /* the destination makes disks and starts its QEMU; lanes come up */
#define PHASE_BULK "bulk"       /* first pass over the disks */
#define PHASE_PASSES "passes"   /* passes over what was written meanwhile, until little is left */
#define PHASE_VERIFY "verify"   /* --verify: the disks' first comparison, passes beside it */
#define PHASE_MEMORY "memory"   /* rounds of memory; disk passes go on beside them */
#define PHASE_PAUSED "paused"   /* the guest stands still: last disk pass, last memory */
#define PHASE_HANDOFF "handoff" /* device state, load, commit */
#define PHASE_COMMITTED \
    "committed" /* the source has given up the right to run; the answer is awaited */
#define PHASE_CLEANUP "cleanup"   /* the guest runs at the destination; the source tidies up */
#define PHASE_ROLLBACK "rollback" /* everything is put back at the source */
#define PHASE_LOADED "loaded"     /* destination only: a whole, paused copy waits for the commit */
#define PHASE_ENDED "ended"

#endif
