/*
 * The form of a peer's address: HOST[:PORT] or [V6][:PORT]. Declared in trust.h. Pure; nothing is
 * resolved here.
 */
#include "trust.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* The longest name in the DNS (RFC 1035 §3.1, as text). */
#define HOST_LENGTH_MAX 253
#define PORT_MAX 65535

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_host_name(const char *text, size_t length)
{
    if (length == 0 || length > HOST_LENGTH_MAX || !is_letter_or_digit(text[0])) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (!is_letter_or_digit(text[i]) && strchr(".-_", text[i]) == NULL) {
            return false;
        }
    }
    return true;
}

/* An IPv6 address, perhaps with the zone of a link-local one ("fe80::1%eth0"). */
static bool is_ipv6(const char *text, size_t length)
{
    struct in6_addr binary;
    char address[INET6_ADDRSTRLEN];
    const char *percent = memchr(text, '%', length);
    size_t address_length = percent != NULL ? (size_t)(percent - text) : length;

    if (percent != NULL && !is_host_name(percent + 1, length - address_length - 1)) {
        return false;
    }
    if (address_length >= sizeof(address)) {
        return false;
    }
    memcpy(address, text, address_length);
    address[address_length] = '\0';
    return inet_pton(AF_INET6, address, &binary) == 1;
}

static bool parse_port(const char *text, uint16_t *port)
{
    unsigned value = 0;

    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(*text - '0');
        if (value > PORT_MAX) {
            return false;
        }
    }
    *port = (uint16_t)value;
    return value > 0;
}

int tls_address_split(const char *address, char *host, size_t host_size, uint16_t *port)
{
    const bool bracketed = address[0] == '[';
    const char *start = bracketed ? address + 1 : address;
    size_t length = strcspn(start, bracketed ? "]" : ":");
    const char *rest = start + length;

    *port = 0;
    if (bracketed) {
        if (*rest != ']' || !is_ipv6(start, length)) {
            return -EINVAL;
        }
        rest++;
    } else if (!is_host_name(start, length)) {
        return -EINVAL;
    }
    if (*rest != '\0' && (*rest != ':' || !parse_port(rest + 1, port))) {
        return -EINVAL;
    }
    if (length >= host_size) {
        return -EINVAL;
    }
    memcpy(host, start, length);
    host[length] = '\0';
    return 0;
}
