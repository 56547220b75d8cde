/*
 * OpenSSL's errors in an operator's words. See failure.h.
 */
#include "failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <stdio.h>
#include <string.h>

struct meaning {
    int reason; /* SSL_R_* */
    enum tls_failure failure;
    const char *sentence;
};

#define UNTRUSTED "the peer does not trust this host's key"
#define NOT_TLS_1_3 "the peer does not speak TLS 1.3"

/* SSL_R_SSLV3_ALERT_* and SSL_R_TLSV1*_ALERT_* are alerts that the peer sent; the others we found
 * ourselves. */
static const struct meaning control_meanings[] = {
    {SSL_R_TLSV1_ALERT_UNKNOWN_CA, TLS_FAILURE_WE_ARE_UNTRUSTED, UNTRUSTED},
    {SSL_R_TLSV1_ALERT_ACCESS_DENIED, TLS_FAILURE_WE_ARE_UNTRUSTED, UNTRUSTED},
    {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, TLS_FAILURE_WE_ARE_UNTRUSTED, UNTRUSTED},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, TLS_FAILURE_WE_ARE_UNTRUSTED, UNTRUSTED},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, TLS_FAILURE_WE_ARE_UNTRUSTED, UNTRUSTED},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, TLS_FAILURE_WE_ARE_UNTRUSTED, UNTRUSTED},
    {SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, TLS_FAILURE_WE_ARE_UNTRUSTED,
     "the peer does not take host keys of this kind"},
    {SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, TLS_FAILURE_WE_ARE_UNTRUSTED,
     "the peer got no host key from us"},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, TLS_FAILURE_PROTOCOL,
     "the peer showed no host key that we can judge (Ed25519)"},
    {0, TLS_FAILURE_NONE, NULL},
};

static const struct meaning lane_meanings[] = {
    {SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, TLS_FAILURE_PROTOCOL,
     "the peer does not know this lane's ticket"},
    {SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER, TLS_FAILURE_PROTOCOL,
     "the peer does not have this lane's key"},
    {SSL_R_TLSV1_ALERT_DECRYPT_ERROR, TLS_FAILURE_PROTOCOL,
     "the peer does not have this lane's key"},
    {SSL_R_BINDER_DOES_NOT_VERIFY, TLS_FAILURE_PROTOCOL, "the peer does not have this lane's key"},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, TLS_FAILURE_PROTOCOL, "the peer showed no lane ticket"},
    {0, TLS_FAILURE_NONE, NULL},
};

static const struct meaning common_meanings[] = {
    {SSL_R_UNSUPPORTED_PROTOCOL, TLS_FAILURE_PROTOCOL, NOT_TLS_1_3},
    {SSL_R_WRONG_VERSION_NUMBER, TLS_FAILURE_PROTOCOL, NOT_TLS_1_3},
    {SSL_R_WRONG_SSL_VERSION, TLS_FAILURE_PROTOCOL, NOT_TLS_1_3},
    {SSL_R_BAD_PROTOCOL_VERSION_NUMBER, TLS_FAILURE_PROTOCOL, NOT_TLS_1_3},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, TLS_FAILURE_PROTOCOL, NOT_TLS_1_3},
    {SSL_R_HTTP_REQUEST, TLS_FAILURE_PROTOCOL, "the peer speaks HTTP"},
    {SSL_R_HTTPS_PROXY_REQUEST, TLS_FAILURE_PROTOCOL, "the peer speaks HTTP"},
    {SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL, TLS_FAILURE_PROTOCOL,
     "the peer does not speak our version of the protocol (ALPN)"},
    {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, TLS_FAILURE_PROTOCOL,
     "what the peer sent was damaged on the way"},
    {SSL_R_SSLV3_ALERT_BAD_RECORD_MAC, TLS_FAILURE_PROTOCOL,
     "what we sent reached the peer damaged"},
    {0, TLS_FAILURE_NONE, NULL},
};

static const struct meaning *find(const struct meaning *meanings, int reason)
{
    for (; meanings->sentence != NULL; meanings++) {
        if (meanings->reason == reason) {
            return meanings;
        }
    }
    return NULL;
}

static const struct meaning *meaning_of(int reason, bool lane)
{
    const struct meaning *meaning = find(lane ? lane_meanings : control_meanings, reason);

    return meaning != NULL ? meaning : find(common_meanings, reason);
}

/* The queue's oldest error of libssl, which is nearest to the cause, or its oldest of all; the
 * queue is empty after it. */
static unsigned long take_cause(void)
{
    unsigned long first = ERR_get_error();
    unsigned long cause = first;

    while (cause != 0 && ERR_GET_LIB(cause) != ERR_LIB_SSL) {
        cause = ERR_get_error();
    }
    ERR_clear_error();
    return cause != 0 ? cause : first;
}

static enum tls_failure connection_lost(const char *doing, const char *how, char *sentence,
                                        size_t sentence_size)
{
    snprintf(sentence, sentence_size, "the connection was lost while %s: %s", doing, how);
    return TLS_FAILURE_LOST;
}

enum tls_failure tls_failure_of(int ssl_error, int errno_value, bool lane, const char *doing,
                                char *sentence, size_t sentence_size)
{
    const unsigned long cause = take_cause();
    const int reason = ERR_GET_LIB(cause) == ERR_LIB_SSL ? ERR_GET_REASON(cause) : 0;
    const char *words = cause != 0 ? ERR_reason_error_string(cause) : NULL;
    const struct meaning *meaning;

    if (ssl_error == SSL_ERROR_SYSCALL && errno_value != 0) {
        return connection_lost(doing, strerror(errno_value), sentence, sentence_size);
    }
    if (ssl_error == SSL_ERROR_SYSCALL || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        return connection_lost(doing, "the peer closed it without saying so", sentence,
                               sentence_size);
    }
    if (words == NULL) {
        words = "no reason given";
    }
    meaning = meaning_of(reason, lane);
    if (meaning == NULL) {
        snprintf(sentence, sentence_size, "TLS failed while %s: %s", doing, words);
        return TLS_FAILURE_PROTOCOL;
    }
    snprintf(sentence, sentence_size, "%s (%s)", meaning->sentence, words);
    return meaning->failure;
}
