/* Other schedules than an idle kernel's, but none that it may not choose: see jitter.py.

   Loaded before libc (LD_PRELOAD). What it changes no program may rely on: when a process comes to
   its next wait and a thread to what it was woken for, which of the sockets that are ready are told
   of first, how much of a stream one read gives and one write takes, how long fsync takes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 4096
#define USUAL_US 2000
#define LONG_US 60000

/* Chance: of each thread, so that the same thread chooses the same however the others run. */
static uint64_t seed = 1;
static atomic_uint threads, forks;
static __thread uint64_t state;

static uint64_t chance(void) {
  if (!state)
    state = seed * 0x9E3779B97F4A7C15u + (atomic_fetch_add(&threads, 1) + 1) * 0xBF58476D1CE4E5B9u;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state >> 11;
}

static int one_in(unsigned times) { return chance() % times == 0; }

static void before_fork(void) { atomic_fetch_add(&forks, 1); }

static void in_child(void) { state = chance() + forks * 0x94D049BB133111EBu; }

__attribute__((constructor)) static void begin(void) {
  const char *given = getenv("RELAY_JITTER");
  if (given && strtoull(given, NULL, 10)) seed = strtoull(given, NULL, 10);
  pthread_atfork(before_fork, NULL, in_child);
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

static int64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void sleep_us(int64_t us) {
  int before = errno;
  nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
  errno = before;
}

/* As if others had the CPU: once in so many times, seldom for long. */
static void late(unsigned times) {
  if (one_in(times)) sleep_us(chance() % (one_in(20) ? LONG_US : USUAL_US));
}

/* --- what is ready ------------------------------------------------------------------------------
   A descriptor may be late: it is left out of the answers for some time. One that the kernel tells
   of only once is not. */
static _Atomic int64_t late_until[FDS];
static _Atomic char once[FDS];

static int kept_back(int fd, int64_t now) {
  if (fd < 0 || fd >= FDS || once[fd]) return 0;
  if (late_until[fd] > now) return 1;
  /* Not again right after it was late. */
  if (late_until[fd] + 2 * USUAL_US > now || !one_in(12)) return 0;
  late_until[fd] = now + (int64_t)(chance() % (one_in(20) ? LONG_US : USUAL_US));
  return 1;
}

typedef int wait_call(int, struct epoll_event *, int, int, const sigset_t *);

static int wait_for(wait_call *real, int epfd, struct epoll_event *events, int most, int timeout_ms,
                    const sigset_t *mask) {
  int64_t end = now_us() + timeout_ms * 1000LL;
  if (timeout_ms) late(12); /* between two steps of one turn nobody else gets the CPU */
  if (one_in(3) && most > 1) most = 1 + chance() % (most < 3 ? most : 3);
  for (;;) {
    int count = real(epfd, events, most, timeout_ms, mask), kept = 0;
    if (count <= 0) return count;
    int64_t now = now_us();
    for (int i = 0; i < count; i++)
      if (!kept_back(events[i].data.fd, now)) events[kept++] = events[i];
    if (kept || timeout_ms == 0) return kept;
    if (timeout_ms > 0) {
      if (now >= end) return 0;
      timeout_ms = (int)((end - now + 999) / 1000);
    }
    sleep_us(300);
  }
}

int epoll_pwait(int epfd, struct epoll_event *events, int most, int timeout_ms,
                const sigset_t *mask) {
  REAL(epoll_pwait);
  return wait_for(real, epfd, events, most, timeout_ms, mask);
}

/* Not by epoll_pwait: which of the two is called may be what a test is about. */
static int plain_wait(int epfd, struct epoll_event *events, int most, int timeout_ms,
                      const sigset_t *none) {
  (void)none;
  REAL(epoll_wait);
  return real(epfd, events, most, timeout_ms);
}

int epoll_wait(int epfd, struct epoll_event *events, int most, int timeout_ms) {
  return wait_for(plain_wait, epfd, events, most, timeout_ms, NULL);
}

int epoll_ctl(int epfd, int what, int fd, struct epoll_event *event) {
  REAL(epoll_ctl);
  if (event && fd >= 0 && fd < FDS)
    once[fd] = (event->events & (EPOLLET | EPOLLONESHOT)) != 0 || event->data.fd != fd;
  return real(epfd, what, fd, event);
}

/* --- how much of a stream -----------------------------------------------------------------------
   A local socket takes a short message whole or not at all, and gives it whole: programs may rely on
   it, and a network they may not. */
#define SHORT 4096

enum kind { OTHER, LOCAL, NETWORK };

static enum kind kind_of(int fd) {
  int what = 0, before = errno;
  socklen_t size = sizeof what;
  enum kind kind = OTHER;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &what, &size) == 0 && what == SOCK_STREAM) {
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &what, &size);
    kind = what == AF_UNIX ? LOCAL : NETWORK;
  }
  errno = before;
  return kind;
}

static size_t between(size_t least, size_t most) { return least + chance() % (most - least); }

static size_t part(int fd, size_t count, unsigned times) {
  if (count < 2 || !one_in(times)) return count;
  int there = 0;
  switch (kind_of(fd)) {
    case NETWORK: return between(1, one_in(2) || count < 64 ? count : 64);
    case LOCAL:
      if (count > SHORT && ioctl(fd, FIONREAD, &there) == 0 && there > SHORT)
        return between(SHORT, (size_t)there < count ? (size_t)there : count);
      return count;
    default: return count;
  }
}

/* Only where the program asks how much was taken. */
static size_t taken(int fd, size_t count) {
  if (count < 2 || !one_in(40) || !(fcntl(fd, F_GETFL) & O_NONBLOCK)) return count;
  switch (kind_of(fd)) {
    case NETWORK: return between(1, count);
    case LOCAL: return count > SHORT ? between(SHORT, count) : count;
    default: return count;
  }
}

ssize_t read(int fd, void *buffer, size_t count) {
  REAL(read);
  return real(fd, buffer, part(fd, count, 8));
}

ssize_t recv(int fd, void *buffer, size_t count, int flags) {
  REAL(recv);
  return real(fd, buffer, flags & ~MSG_DONTWAIT ? count : part(fd, count, 8), flags);
}

ssize_t recvfrom(int fd, void *buffer, size_t count, int flags, struct sockaddr *from,
                 socklen_t *size) {
  REAL(recvfrom);
  return real(fd, buffer, flags & ~MSG_DONTWAIT ? count : part(fd, count, 8), flags, from, size);
}

ssize_t write(int fd, const void *buffer, size_t count) {
  REAL(write);
  return real(fd, buffer, taken(fd, count));
}

ssize_t send(int fd, const void *buffer, size_t count, int flags) {
  REAL(send);
  return real(fd, buffer, taken(fd, count), flags);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(writev);
  return real(fd, parts, count > 1 && one_in(40) && kind_of(fd) == NETWORK ? 1 : count);
}

/* --- threads and disks --------------------------------------------------------------------------- */
int sem_wait(sem_t *what) {
  REAL(sem_wait);
  if (sem_trywait(what) == 0) return 0; /* nobody had it */
  int result = real(what);
  late(10);
  return result;
}

int sem_clockwait(sem_t *what, clockid_t clock, const struct timespec *end) {
  REAL(sem_clockwait);
  if (sem_trywait(what) == 0) return 0;
  int result = real(what, clock, end);
  late(10);
  return result;
}

int fsync(int fd) {
  REAL(fsync);
  late(3);
  return real(fd);
}

int fdatasync(int fd) {
  REAL(fdatasync);
  late(3);
  return real(fd);
}
