/*
 * How much memory a mover may take so that pages sent again cost little: at the source for the
 * hashes of all pages and the page cache, at the destination for the page cache. Pure.
 */
#ifndef WATARI_POLICY_PAGE_BUDGET_H
#define WATARI_POLICY_PAGE_BUDGET_H

#include <stdint.h>

/* For SETTING. */
#define PAGE_BUDGET_AUTO UINT64_MAX

/* Bytes. SETTING: what the operator allows, or PAGE_BUDGET_AUTO; RAM: the guest's memory; FREE: what
 * the host has to give without the guest's own. Never more than is free. */
uint64_t page_budget(uint64_t setting, uint64_t ram, uint64_t free);

#endif
