#include "work.h"

#include <assert.h>
#include <stdlib.h>

struct work *work_new(enum frame_type type, uint32_t size)
{
    struct work *work = calloc(1, sizeof *work);

    if (work == NULL) {
        return NULL;
    }
    atomic_init(&work->references, 1);
    work->type = type;
    if (size == 0) {
        return work;
    }
    work->block = malloc(size);
    if (work->block == NULL) {
        free(work);
        return NULL;
    }
    work->data = work->block;
    work->length = size;
    return work;
}

struct work *work_ref(struct work *work)
{
    atomic_fetch_add_explicit(&work->references, 1, memory_order_relaxed);
    return work;
}

static void free_data(struct work *work)
{
    free(work->block);
    work->block = NULL;
    work->data = NULL;
    work->length = 0;
}

void work_drop_data(struct work *work)
{
    assert(atomic_load_explicit(&work->references, memory_order_relaxed) == 1);
    free_data(work);
}

void work_unref(struct work *work)
{
    /* What other threads did with it happens before the last one frees it. */
    if (work == NULL ||
        atomic_fetch_sub_explicit(&work->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    free_data(work);
    free(work);
}

void work_list_put(struct work_list *list, struct work *work)
{
    work->next = NULL;
    if (list->last == NULL) {
        list->first = work;
    } else {
        list->last->next = work;
    }
    list->last = work;
    list->count++;
}

struct work *work_list_take(struct work_list *list)
{
    struct work *work = list->first;

    if (work == NULL) {
        return NULL;
    }
    list->first = work->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    list->count--;
    /* Work that is put in twice would break the chain. */
    assert((list->first == NULL) == (list->count == 0));
    work->next = NULL;
    return work;
}

void work_list_move(struct work_list *list, struct work_list *from)
{
    if (from->first == NULL) {
        return;
    }
    if (list->last == NULL) {
        list->first = from->first;
    } else {
        list->last->next = from->first;
    }
    list->last = from->last;
    list->count += from->count;
    *from = (struct work_list){0};
}
