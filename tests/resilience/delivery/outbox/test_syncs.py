"""A killed process reveals no missing sync, as the system keeps what was written: so they are counted."""

import json
import os
import shutil
import subprocess
import sys

import pytest

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
static atomic_int count;
int syncs(void) { return count; }
int fsync(int fd) { count++; return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { count++; return ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""
PROGRAM = """
import ctypes, json, sys, threading
from resilience import Destination, Outbox, Relay, RelayConfig, Row

syncs = ctypes.CDLL(None).syncs
counts, down = {}, [True]


def counted(name, work):
    before = syncs()
    value = work()
    counts[name] = syncs() - before
    return value


def row(number):
    return Row("eu", "http://eu", "k", number, number)


def send(payload, timeout):
    if down[0]:
        raise ConnectionError("down")


def many():
    threads = [threading.Thread(target=lambda: [outbox.put(row(n)) for n in range(20)]) for _ in range(10)]
    commits = []
    outbox._desk._db.set_trace_callback(lambda statement: commits.append(statement == "COMMIT"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox._desk._db.set_trace_callback(None)
    counts["commits of 200 puts"] = sum(commits)


outbox = counted("open", lambda: Outbox(sys.argv[1]))
first = counted("put", lambda: outbox.put(row(1)))
counted("remove", lambda: outbox.remove(first))
counted("bury", lambda: outbox.bury(row(2), "no"))
counted("200 puts", many)
counted("claim of nothing", lambda: outbox.claim({"us": "http://us"}))

config = RelayConfig(retry_initial=1000.0, retry_maximum=1000.0)
relay = Relay([Destination("eu", send, "http://eu", bounded=True)], config=config, store=outbox)
counted("a result that waits", lambda: relay.deliver("eu", "k", 1))
down[0] = False
relay = Relay([Destination("eu", send, "http://eu", bounded=True)], store=outbox)
counted("100 results taken at once", lambda: [relay.deliver("eu", "k", n) for n in range(100)])
print(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """How many syncs each step of a real process took."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("syncs")
    source, shim = folder / "syncs.c", folder / "syncs.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True, timeout=60)  # noqa: S603 - ours
    ran = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", PROGRAM, folder / "outbox.db"],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        check=True,
        stdout=subprocess.PIPE,
        timeout=120,
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize("step", ["put", "remove", "bury", "a result that waits"])
def test_d2_what_returned_is_on_the_disk(counts, step):
    """Each of these has synced before it returned."""
    assert counts[step] >= 1


def test_d2_a_shared_commit_is_one_sync_and_no_commit_is_without(counts):
    """Two hundred results of ten threads take at least one sync a commit, and fewer than one a result."""
    assert counts["commits of 200 puts"] <= counts["200 puts"] < 200


def test_d4_results_that_are_taken_at_once_cost_no_sync(counts):
    """Nothing is written for them; nor for a look at what others left."""
    assert counts["100 results taken at once"] == 0
    assert counts["claim of nothing"] == 0
