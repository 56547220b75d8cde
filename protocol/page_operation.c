#include "page_operation.h"

#include "bytes.h"

void page_operation_encode(const struct page_operation *operation, uint8_t out[PAGE_OPERATION_SIZE])
{
    out[0] = (uint8_t)operation->kind;
    bytes_put32(out + 1, operation->offset);
    bytes_put32(out + 5, operation->slot);
}

bool page_operation_decode(const uint8_t in[PAGE_OPERATION_SIZE], struct page_operation *out)
{
    if (in[0] != PAGE_STORE && in[0] != PAGE_DIFFERENCE) {
        return false;
    }
    *out = (struct page_operation){.kind = (enum page_operation_kind)in[0],
                                   .offset = bytes_get32(in + 1),
                                   .slot = bytes_get32(in + 5)};
    return true;
}
