/*
 * Preloaded into a server: logs when each fdatasync and fsync began and ended, and each write of a file that was
 * held, and sleeps before a flush when it is told to. All words are in the file that FSYNC_SHIM names (relative to
 * the working directory), shared with whoever commands:
 *   word 0           how many ns the next flush is to sleep, or, with the highest bit set, to be busy in the kernel; taken back
 *                    to 0 by the call that does
 *   word 1           how many calls were logged
 *   word 2 + 6n ...  call n modulo CALLS: 0 for a flush and 1 for a write, began, sleep began, sleep ended, ended
 *                    (CLOCK_MONOTONIC, ns; ended is 0 while the rest is written), and how long it had a CPU in that sleep, ns
 * Where FSYNC_SHIM_EACH is set, every call that is not told otherwise sleeps for so many ns: a disk as slow as that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CALLS 4096
#define WORDS (2 + 6 * CALLS)
/* What is written into memory takes microseconds; a write that takes longer than this was held. */
#define HELD_NS 1000000u
#define BUSY (UINT64_C(1) << 63)
/* The kernel makes so much at once of what nobody can foresee: some milliseconds of nothing but its own work. */
#define AT_ONCE (2u << 20)

static _Atomic uint64_t *words;
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static uint64_t each;

static uint64_t read_clock(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

static uint64_t on_cpu(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* Other libraries may write before this one's turn to begin has come. */
static void resolve_writes(void)
{
	real_write = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
	real_pwrite = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
}

static void note(uint64_t kind, uint64_t began, uint64_t from, uint64_t to, uint64_t busy)
{
	/* Threads that write at once have a place each. */
	uint64_t index = atomic_fetch_add(&words[1], 1) % CALLS;
	_Atomic uint64_t *entry = &words[2 + 6 * index];

	entry[4] = 0;
	entry[0] = kind;
	entry[1] = began;
	entry[2] = from;
	entry[3] = to;
	entry[5] = busy;
	entry[4] = now();
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("FSYNC_SHIM"), *of_each = getenv("FSYNC_SHIM_EACH");
	int fd;
	void *map;

	real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	resolve_writes();
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

static void spend(uint64_t length)
{
	/* Nobody reads it, so threads may share it. */
	static char bytes[AT_ONCE];
	struct timespec t;
	uint64_t end;
	int random;

	if (!(length & BUSY)) {
		t.tv_sec = (time_t)(length / 1000000000u);
		t.tv_nsec = (long)(length % 1000000000u);
		nanosleep(&t, NULL);
		return;
	}
	random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	if (random < 0)
		return;
	end = on_cpu() + (length & ~BUSY);
	while (on_cpu() < end && read(random, bytes, sizeof(bytes)) > 0)
		;
	close(random);
}

static int watched(int (*call)(int), int fd)
{
	uint64_t began = now(), from = 0, to = 0, busy = 0, length;
	int result;

	if (!words)
		return call(fd);
	length = atomic_exchange(&words[0], 0);
	if (!length)
		length = each;
	if (length) {
		from = now();
		busy = on_cpu();
		spend(length);
		busy = on_cpu() - busy;
		to = now();
	}
	result = call(fd);
	note(0, began, from, to, busy);
	return result;
}

static void written(int fd, uint64_t began)
{
	int error = errno;
	struct stat status;

	/* A socket's peer may be slow: that is no matter of a disk. */
	if (words && now() - began > HELD_NS && fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
		note(1, began, 0, 0, 0);
	errno = error;
}

int fdatasync(int fd)
{
	return watched(real_fdatasync, fd);
}

int fsync(int fd)
{
	return watched(real_fsync, fd);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
	uint64_t began = now();
	ssize_t result;

	if (!real_write)
		resolve_writes();
	result = real_write(fd, bytes, length);
	written(fd, began);
	return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
	uint64_t began = now();
	ssize_t result;

	if (!real_pwrite)
		resolve_writes();
	result = real_pwrite(fd, bytes, length, at);
	written(fd, began);
	return result;
}

/* The same where off_t has 64 bits anyway, under the name by which the JVM knows it. */
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
	return pwrite(fd, bytes, length, at);
}
