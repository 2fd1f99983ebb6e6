/* The wall clock of a process that preloads this: it stands still at an instant that the test sets.
 *
 * SET_CLOCK_FILE names a file with the instant: nanoseconds since 1970, a 64-bit integer of the machine.
 * It is mapped, so a change takes effect at once. Other clocks, such as the monotonic one, continue. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *instant_ns;

__attribute__((constructor)) static void map_instant(void) {
    const char *path = getenv("SET_CLOCK_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *instant_ns, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) instant_ns = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int is_wall_clock = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (instant_ns == NULL || !is_wall_clock) return (int)syscall(SYS_clock_gettime, clock, time);
    int64_t now_ns = *instant_ns;
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
