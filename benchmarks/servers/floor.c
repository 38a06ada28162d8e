/* The kernel floor of a fan-out: read a record, send() it to every subscriber. Nothing else.
 *
 * Test equipment, compiled when a benchmark runs; no part of the product. It answers: what would a
 * server cost that only made the system calls?
 *
 *     floor SUBSCRIBERS RECORD_BYTES
 *
 * prints its port, accepts so many subscribers on it, then one publisher, and repeats whole records of
 * the publisher to all until the publisher goes away.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void read_whole(int from, char *into, size_t size) {
    for (size_t got = 0; got < size;) {
        ssize_t count = read(from, into + got, size - got);
        if (count < 0) fail("read");
        if (count == 0) exit(0);
        got += (size_t)count;
    }
}

static void send_whole(int to, const char *from, size_t size) {
    for (size_t sent = 0; sent < size;) {
        ssize_t count = send(to, from + sent, size - sent, MSG_NOSIGNAL);
        if (count < 0) fail("send");
        sent += (size_t)count;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int count = atoi(argv[1]);
    size_t size = (size_t)atol(argv[2]);
    int *subscribers = calloc((size_t)count, sizeof *subscribers);
    char *record = malloc(size);
    if (count < 1 || size < 1 || !subscribers || !record) return 2;

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) ||
        listen(listener, 4096) || getsockname(listener, (struct sockaddr *)&address, &length))
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int on = 1;
    for (int each = 0; each < count; each++) {
        subscribers[each] = accept(listener, NULL, NULL);
        if (subscribers[each] < 0) fail("accept");
        setsockopt(subscribers[each], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    int publisher = accept(listener, NULL, NULL);
    if (publisher < 0) fail("accept");
    for (;;) {
        read_whole(publisher, record, size);
        for (int each = 0; each < count; each++) send_whole(subscribers[each], record, size);
    }
}
