/* The wall clock of a process that preloads this: it stands still at an instant that the test sets, or it is
 * wrong by as much as the test says.
 *
 * SET_CLOCK_FILE names a file with two 64-bit integers of the machine: nanoseconds, and whether they are the
 * difference from the right time (1) or the time since 1970 (0). It is mapped, so a change takes effect at
 * once. Other clocks, such as the monotonic one, continue. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *setting;

__attribute__((constructor)) static void map_instant(void) {
    const char *path = getenv("SET_CLOCK_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, 2 * sizeof *setting, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) setting = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int is_wall_clock = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (setting == NULL || !is_wall_clock) return (int)syscall(SYS_clock_gettime, clock, time);
    int64_t now_ns = setting[0];
    if (setting[1] != 0) {
        int failed = (int)syscall(SYS_clock_gettime, clock, time);
        if (failed != 0) return failed;
        now_ns += time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
    }
    time->tv_sec = now_ns / 1000000000;
    time->tv_nsec = now_ns % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *time, void *zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
    if (seconds != NULL) *seconds = now.tv_sec;
    return now.tv_sec;
}
