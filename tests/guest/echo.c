/*
 * Answers on UDP port 7: see echo.h.
 */
#include "echo.h"

#include "pace.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define PORT 7
#define MAX_QUESTION 1024

bool echo_init(struct echo *echo)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};

    atomic_init(&echo->answers, 0);
    echo->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return echo->fd >= 0 && bind(echo->fd, (struct sockaddr *)&any, sizeof any) == 0;
}

void *echo_run(void *argument)
{
    struct echo *echo = argument;
    uint8_t datagram[MAX_QUESTION + 2 * sizeof(uint64_t)];

    for (;;) {
        struct sockaddr_in asker;
        socklen_t length = sizeof asker;
        ssize_t size =
            recvfrom(echo->fd, datagram, MAX_QUESTION, 0, (struct sockaddr *)&asker, &length);
        uint64_t tail[2];

        if (size < 0 && errno != EINTR && errno != ECONNREFUSED)
            return NULL;
        if (size < 0)
            continue;
        tail[0] = htobe64(atomic_fetch_add(&echo->answers, 1) + 1);
        tail[1] = htobe64(pace_now());
        memcpy(datagram + size, tail, sizeof tail);
        /* An answer that cannot be sent is a lost one, which is what the asker is there to
         * count. */
        (void)sendto(echo->fd, datagram, (size_t)size + sizeof tail, 0, (struct sockaddr *)&asker,
                     length);
    }
}
