/*
 * Any 32 bytes: what is accepted must encode to the same bytes again.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "protocol/preamble.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size != PREAMBLE_SIZE) {
        return 0;
    }
    struct preamble preamble;
    enum preamble_verdict verdict = preamble_decode(data, &preamble);
    if (verdict == PREAMBLE_VERSION) {
        assert(preamble_common_version(&preamble) == 0);
    }
    if (verdict == PREAMBLE_OK) {
        uint8_t again[PREAMBLE_SIZE];
        preamble_encode(&preamble, again);
        assert(memcmp(again, data, PREAMBLE_SIZE) == 0);
        assert(preamble.kind == PREAMBLE_REFUSAL || preamble_common_version(&preamble) > 0);
    }
    return 0;
}
