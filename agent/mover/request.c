#include "request.h"

#include <assert.h>

void request_table_init(struct request_table *table)
{
    table->first_free = 0;
    table->used = 0;
    table->generation = 0;
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        table->slots[i] = (struct request){.next_free = i + 1};
    }
}

struct request *request_take(struct request_table *table)
{
    size_t slot = table->first_free;
    struct request *request;

    if (slot == REQUESTS_MAX) {
        return NULL;
    }
    request = &table->slots[slot];
    table->first_free = request->next_free;
    table->used++;
    table->generation++;
    /* Never used twice, so that a DONE that comes twice finds nothing. */
    *request = (struct request){.id = table->generation * REQUESTS_MAX + slot};
    return request;
}

struct request *request_find(struct request_table *table, uint64_t id)
{
    struct request *request = &table->slots[id % REQUESTS_MAX];

    return id != 0 && request->id == id && request->sent ? request : NULL;
}

struct request *request_next_sent(struct request_table *table, size_t *position)
{
    while (*position < REQUESTS_MAX) {
        struct request *request = &table->slots[(*position)++];

        if (request->id != 0 && request->sent) {
            return request;
        }
    }
    return NULL;
}

uint64_t request_lowest(const struct request_table *table, const struct pass *pass, uint64_t none)
{
    uint64_t lowest = none;

    for (size_t slot = 0; slot < REQUESTS_MAX; slot++) {
        const struct request *request = &table->slots[slot];

        if (request->id != 0 && request->pass == pass && request->offset < lowest) {
            lowest = request->offset;
        }
    }
    return lowest;
}

void request_release(struct request_table *table, struct request *request)
{
    size_t slot = (size_t)(request - table->slots);

    assert(request->id != 0 && table->used > 0);
    work_unref(request->work);
    *request = (struct request){.next_free = table->first_free};
    table->first_free = slot;
    table->used--;
}
