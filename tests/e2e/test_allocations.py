"""The relay allocates nothing: 10,000 relayed reads, not one call of operator new on a worker's thread.

A preloaded library counts operator new per thread. It needs a binary without AddressSanitizer, which has an operator new of its own: POINTSMAN_RELEASE_BINARY,
else POINTSMAN_BINARY. OpenSSL allocates by malloc for each TLS record; that is not ours and not counted here."""

import mmap
import os
import struct
import subprocess

import pytest

from harness.router import Router, router_binary
from harness.system import wait_until
from harness.wire import Wire
from harness.world import BRANCH

USER = f"app.{BRANCH}"

_COUNTER = r"""
#include <cstdlib>
#include <fcntl.h>
#include <new>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {
constexpr int kSlots = 64;
struct Slot { long thread; long calls; };
Slot* slots() {
  static Slot* mapped = [] {
    const int fd = open(getenv("POINTSMAN_NEW_COUNTS"), O_RDWR);
    return static_cast<Slot*>(mmap(nullptr, kSlots * sizeof(Slot), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  }();
  return mapped;
}
void count() {
  thread_local Slot* mine = nullptr;
  if (mine == nullptr) {
    const long id = syscall(SYS_gettid);
    for (int i = 0; i < kSlots && mine == nullptr; ++i) {
      long none = 0;
      if (__atomic_compare_exchange_n(&slots()[i].thread, &none, id, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) mine = &slots()[i];
    }
    if (mine == nullptr) abort();
  }
  ++mine->calls;
}
void* allocate(std::size_t size) {
  count();
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace
void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
"""

_TRANSACTIONS = 10_000


@pytest.fixture
def counted_router(folder, world, make_config):
    """A router with one worker whose calls of operator new can be read; counts() gives them by thread."""
    home = os.path.join(folder, "allocations")
    os.makedirs(home, exist_ok=True)
    library = os.path.join(home, "count_new.so")
    subprocess.run(["g++", "-O2", "-shared", "-fPIC", "-xc++", "-", "-o", library], input=_COUNTER.encode(), check=True)
    counts_file = os.path.join(home, "counts")
    with open(counts_file, "wb") as file:
        file.write(bytes(64 * 16))
    config = make_config()
    config["workers"] = 1
    for listener in config["listeners"]:
        listener["tls"] = "optional"
    config["defaults"]["probe"]["interval"] = "60s"   # a new view allocates on the worker: none may come while we count
    router = Router(os.environ.get("POINTSMAN_RELEASE_BINARY") or router_binary(), os.path.join(home, "router"), config, world,
                    environment={"LD_PRELOAD": library, "POINTSMAN_NEW_COUNTS": counts_file})
    with open(counts_file, "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)

    def counts():
        pairs = struct.iter_unpack("qq", mapped[:])
        return {thread: calls for thread, calls in pairs if thread}

    try:
        yield router.start(), counts
    finally:
        router.finish()
        mapped.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_ten_thousand_relayed_reads_call_operator_new_not_once(counted_router, tls):
    router, counts = counted_router
    wire = None if tls else Wire(router.port())
    session = router.login(USER, wire=wire)
    worker = _worker_thread(router, session, counts)
    wait_until(lambda: len(router.sessions()) == 1, "the other session to have ended")
    before = counts()[worker]
    for number in range(_TRANSACTIONS):   # a query and its answer: two relayed reads each
        assert session.value(f"SELECT {number}") == str(number)
    assert counts()[worker] == before
    session.terminate()


def _worker_thread(router, session, counts):
    """The thread that allocates when a session begins, and is not the control thread (the process's first)."""
    before = counts()
    second = router.login(USER)
    second.terminate()
    grown = [thread for thread, calls in counts().items() if thread != router.pid and calls > before.get(thread, 0)]
    assert grown, "no thread allocated for a login: the counter does not count"
    names = {thread: _name(router.pid, thread) for thread in grown}
    workers = [thread for thread, name in names.items() if name.startswith("worker")]
    assert len(workers) == 1, names
    return workers[0]


def _name(pid, thread):
    with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as text:
        return text.read().strip()
