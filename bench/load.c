/* load METHOD HOST PORT PATH CONNECTIONS SECONDS [HEADER...]
 *
 * Keeps one request in flight on each of CONNECTIONS connections, and prints
 *     requests seconds p50_us p99_us not_200 closed
 * and then, for each connection, its local port and how many answers it got. A connection that the server closes is
 * counted and opened again. A request that is not answered at the end counts among the latencies as if it were, then.
 * Answers must have a Content-Length and fit into ANSWER bytes. One thread, epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER 32768
#define SAMPLES 8000000
#define REQUEST 65536

struct connection {
    int fd;
    int port;
    size_t have;     /* bytes of the answer so far */
    size_t want;     /* its length, 0 while the head is incomplete */
    uint64_t sent;   /* when the request left */
    uint64_t answers;
    char buffer[ANSWER];
};

static struct sockaddr_in server;
static char request[REQUEST];
static size_t request_length;
static int poller, is_head;
static uint32_t *samples;
static uint64_t noted, answers, refused, closed;

static void die(const char *what) {
    perror(what);
    exit(2);
}

static void give_up(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(2);
}

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void ask(struct connection *c) {
    c->have = c->want = 0;
    c->sent = nanoseconds();
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length) die("send");
}

static void dial(struct connection *c) {
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server)) die("connect");
    if (getsockname(c->fd, (struct sockaddr *)&own, &length)) die("getsockname");
    c->port = ntohs(own.sin_port);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    ask(c);
}

/* Sets c->want when the head is complete. */
static void look_at_head(struct connection *c) {
    c->buffer[c->have] = 0;
    char *end = strstr(c->buffer, "\r\n\r\n");
    if (!end) return;
    c->want = (size_t)(end + 4 - c->buffer);
    if (strncmp(c->buffer + 8, " 200", 4)) refused++;
    if (is_head) return;
    char *length = strcasestr(c->buffer, "\r\ncontent-length:");
    if (!length || length > end) give_up("an answer without Content-Length");
    c->want += strtoul(length + 17, NULL, 10);
    if (c->want >= ANSWER) give_up("an answer that is too long");
}

static void note_latency(const struct connection *c) {
    if (noted < SAMPLES) samples[noted++] = (uint32_t)((nanoseconds() - c->sent) / 1000);
}

static void read_some(struct connection *c) {
    ssize_t got = recv(c->fd, c->buffer + c->have, ANSWER - 1 - c->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        closed++;
        close(c->fd);
        dial(c);
        return;
    }
    c->have += (size_t)got;
    if (!c->want) look_at_head(c);
    if (!c->want || c->have < c->want) return;
    if (c->have > c->want) give_up("bytes after the answer");
    note_latency(c);
    answers++;
    c->answers++;
    ask(c);
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc < 7) give_up("usage: load METHOD HOST PORT PATH CONNECTIONS SECONDS [HEADER...]");
    is_head = !strcmp(argv[1], "HEAD");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1) give_up("HOST must be an IPv4 address");
    int count = atoi(argv[5]), used;
    used = snprintf(request, REQUEST, "%s %s HTTP/1.1\r\nHost: %s:%s\r\n", argv[1], argv[4], argv[2], argv[3]);
    for (int i = 7; i < argc && used < REQUEST; i++)
        used += snprintf(request + used, REQUEST - (size_t)used, "%s\r\n", argv[i]);
    if (used + 3 > REQUEST) give_up("the request is too long");
    used += snprintf(request + used, REQUEST - (size_t)used, "\r\n");
    request_length = (size_t)used;

    samples = malloc(sizeof *samples * SAMPLES);
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    poller = epoll_create1(0);
    if (!samples || !connections || poller < 0) die("setup");
    uint64_t begin = nanoseconds(), now = begin, end = begin + (uint64_t)(atof(argv[6]) * 1e9);
    for (int i = 0; i < count; i++) dial(&connections[i]);
    struct epoll_event ready[256];
    while (now < end) {
        int events = epoll_wait(poller, ready, 256, 100);
        for (int i = 0; i < events; i++) read_some(ready[i].data.ptr);
        now = nanoseconds();
    }
    for (int i = 0; i < count; i++) note_latency(&connections[i]);
    qsort(samples, noted, sizeof *samples, by_value);
    printf("%llu %.6f %u %u %llu %llu\n", (unsigned long long)answers, (double)(now - begin) / 1e9,
           noted ? samples[noted / 2] : 0, noted ? samples[noted * 99 / 100] : 0,
           (unsigned long long)refused, (unsigned long long)closed);
    for (int i = 0; i < count; i++)
        printf("%d %llu\n", connections[i].port, (unsigned long long)connections[i].answers);
    return 0;
}
