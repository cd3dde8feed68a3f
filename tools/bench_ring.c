/* The floor of `rheo bench ring`: a ring of one slot size in shared memory, a futex to sleep on, nothing else.
   Layout: word 0 (uint32) is slept on; int64 at 64 bytes written, at 128 read; slots of `size` bytes from 256 on. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 256 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Stamp the first 8 bytes of x with the time, and put size bytes into the ring. */
void ring_write(long size, char *ring, char *x) {
    _Atomic uint32_t *word = (_Atomic uint32_t *)ring;
    _Atomic int64_t *written = (_Atomic int64_t *)(ring + 64);
    double t = now();
    memcpy(x, &t, 8);
    int64_t k = atomic_load(written);
    memcpy(ring + 256 + (k % SLOTS) * size, x, size);
    atomic_store(written, k + 1);
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0);
}

/* Take the next; *age: s since it was stamped. Returns 0 where none came within 10 s. */
long ring_read(long size, char *ring, char *x, double *age) {
    _Atomic uint32_t *word = (_Atomic uint32_t *)ring;
    _Atomic int64_t *written = (_Atomic int64_t *)(ring + 64), *read_ = (_Atomic int64_t *)(ring + 128);
    int64_t k = atomic_load(read_);
    double end = now() + 10;
    while (1) {
        uint32_t seen = atomic_load(word);
        if (atomic_load(written) > k) break;
        struct timespec wait = {0, 100000000};
        syscall(SYS_futex, word, FUTEX_WAIT, seen, &wait, 0, 0);
        if (now() > end) return 0;
    }
    memcpy(x, ring + 256 + (k % SLOTS) * size, size);
    atomic_store(read_, k + 1);
    double t;
    memcpy(&t, x, 8);
    *age = now() - t;
    return 1;
}
