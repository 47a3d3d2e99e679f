/*
 * Preloaded into a server: logs when each fdatasync and fsync began and ended, and sleeps before one of
 * them when it is told to. All words are in the file that FSYNC_SHIM names (relative to the working
 * directory), shared with whoever commands:
 *   word 0           how many ns the next call is to sleep; taken back to 0 by the call that does
 *   word 1           how many calls were logged
 *   word 2 + 4n ...  call n modulo CALLS: began, sleep began, sleep ended, ended (CLOCK_MONOTONIC, ns)
 * Where FSYNC_SHIM_EACH is set, every call that is not told otherwise sleeps for so many ns: a disk as slow as that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CALLS 4096
#define WORDS (2 + 4 * CALLS)

static _Atomic uint64_t *words;
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static uint64_t each;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("FSYNC_SHIM"), *of_each = getenv("FSYNC_SHIM_EACH");
	int fd;
	void *map;

	real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	if (of_each)
		each = strtoull(of_each, NULL, 10);
	if (!path)
		return;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (ftruncate(fd, WORDS * sizeof(uint64_t)) == 0) {
		map = mmap(NULL, WORDS * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map != MAP_FAILED)
			words = map;
	}
	close(fd);
}

static int watched(int (*call)(int), int fd)
{
	uint64_t began = now(), from = 0, to = 0, length, index;
	_Atomic uint64_t *entry;
	int result;

	if (!words)
		return call(fd);
	length = atomic_exchange(&words[0], 0);
	if (!length)
		length = each;
	if (length) {
		struct timespec t = { (time_t)(length / 1000000000u), (long)(length % 1000000000u) };

		from = now();
		nanosleep(&t, NULL);
		to = now();
	}
	result = call(fd);
	index = atomic_load(&words[1]) % CALLS;
	entry = &words[2 + 4 * index];
	entry[0] = began;
	entry[1] = from;
	entry[2] = to;
	entry[3] = now();
	atomic_fetch_add(&words[1], 1);
	return result;
}

int fdatasync(int fd)
{
	return watched(real_fdatasync, fd);
}

int fsync(int fd)
{
	return watched(real_fsync, fd);
}
