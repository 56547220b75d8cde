#include "cpu.h"

#include <openssl/crypto.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* OPENSSL_ia32cap(3): PCLMULQDQ and AES-NI. */
#define IA32_NEEDED (UINT64_C(1) << 33 | UINT64_C(1) << 57)
/* OpenSSL's crypto/arm_arch.h: ARMV8_AES and ARMV8_PMULL. */
#define ARM_NEEDED (UINT64_C(1) << 2 | UINT64_C(1) << 5)

bool tls_cpu_settings_have_aes(const char *settings)
{
    static const struct {
        const char *name;
        uint64_t needed;
    } kinds[] = {{"OPENSSL_ia32cap=", IA32_NEEDED}, {"OPENSSL_armcap=", ARM_NEEDED}};

    for (size_t i = 0; settings != NULL && i < sizeof kinds / sizeof kinds[0]; i++) {
        const size_t length = strlen(kinds[i].name);

        if (strncmp(settings, kinds[i].name, length) == 0) {
            return (strtoull(settings + length, NULL, 16) & kinds[i].needed) == kinds[i].needed;
        }
    }
    return true;
}

bool tls_cpu_has_aes(void)
{
    return tls_cpu_settings_have_aes(OPENSSL_info(OPENSSL_INFO_CPU_SETTINGS));
}
