// Loaded into a Redis before libc: its clock and its disk are as the file named by ZTURBO_FAULTS says at the moment.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct faults {
    int64_t clock_offset; // microseconds
    int64_t fsync_delay;  // microseconds
};

static volatile struct faults *faults;

__attribute__((constructor)) static void attach(void) {
    int fd = open(getenv("ZTURBO_FAULTS"), O_RDONLY | O_CLOEXEC);
    faults = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, fd, 0);
    if (faults == MAP_FAILED) abort();
    close(fd);
}

static struct timespec shifted(struct timespec real) {
    int64_t micros = real.tv_sec * INT64_C(1000000) + real.tv_nsec / 1000 + faults->clock_offset;
    return (struct timespec){micros / 1000000, micros % 1000000 * 1000};
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, at);
    if (clock == CLOCK_REALTIME) *at = shifted(*at);
    return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static int delayed(const char *name, int fd) {
    int64_t micros = faults->fsync_delay;
    nanosleep(&(struct timespec){micros / 1000000, micros % 1000000 * 1000}, NULL);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return delayed("fsync", fd); }

int fdatasync(int fd) { return delayed("fdatasync", fd); }
