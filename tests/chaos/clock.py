"""A wall clock that can jump: a small library, built with the machine's C compiler, that adds an offset to the time.

It is preloaded into a process and reads the offset from a file that it has mapped, so a jump is felt at once. The
monotonic clock goes on as it does when an administrator sets the time.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static volatile const long long *offset_ms;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (file >= 0) {
        void *mapped = mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED) offset_ms = mapped;
    }
}

int clock_gettime(clockid_t id, struct timespec *told) {
    if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(id, told);
    if (result == 0 && offset_ms && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        long long ns = told->tv_nsec + *offset_ms % 1000 * 1000000;
        told->tv_sec += *offset_ms / 1000 + ns / 1000000000;
        told->tv_nsec = ns % 1000000000;
        if (told->tv_nsec < 0) { told->tv_nsec += 1000000000; told->tv_sec -= 1; }
    }
    return result;
}

int gettimeofday(struct timeval *told, void *zone) {
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
"""


class Clocks:
    """One clock for each process, all of them right at first. Without a C compiler there are none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = folder / "clock.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        self.available = compiler is not None
        if compiler is not None:
            source = folder / "clock.c"
            source.write_text(_SOURCE, encoding="utf-8")
            command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)

    def environment(self, name: str) -> dict[str, str]:
        """What a process's environment needs for its clock to be ours."""
        if not self.available:
            return {}
        self.set(name, 0)
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file(name))}

    def set(self, name: str, offset_ms: int) -> None:
        """Put a process's clock this far before or behind the true time."""
        with self._file(name).open("r+b" if self._file(name).exists() else "wb") as file:
            file.write(struct.pack("=q", offset_ms))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
