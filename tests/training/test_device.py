"""Which GPU a process takes (real ones are not needed for that), and what it keeps of memory."""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from caltech.errors import InputError
from caltech.training import device


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """Two that do not exist; gives the paths of the locks that others hold."""
    uuids = [SimpleNamespace(uuid=f"GPU-{number}") for number in range(2)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: uuids[index])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    device.claim_gpu.cache_clear()
    index = device.claim_gpu()[0]
    (lock,) = tmp_path.glob("caltech-*GPU-0.lock")
    assert index == 0
    yield lock, Path(str(lock).replace("GPU-0", "GPU-1"))
    device.claim_gpu.cache_clear()


def test_a_process_keeps_its_gpu_and_takes_none_that_another_holds(two_gpus):
    first, second = two_gpus
    assert device.claim_gpu()[0] == 0
    device.claim_gpu.cache_clear()  # as if this process had ended
    with FileLock(first):
        assert device.claim_gpu()[0] == 1
        device.claim_gpu.cache_clear()
        with FileLock(second), pytest.raises(InputError, match="All 2 GPUs are held"):
            device.claim_gpu()


def test_jobs_at_once_are_as_many_as_gpus(configure, monkeypatch):
    configure("lr=1")  # registers the resolvers
    asked = OmegaConf.create({"jobs": "${gpus:-1}", "for_a_job": "${gpus:0,1}"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert (asked.jobs, asked.for_a_job) == (-1, 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert (asked.jobs, asked.for_a_job) == (4, 1)


PAGES_ANEW = """
import ctypes, resource
from caltech.training.device import keep_freed_memory
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.memset.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
c.free.argtypes = (ctypes.c_void_p,)
keep_freed_memory()
blocks = [None] * 24
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for i in range(24):
        blocks[i] = c.malloc(100_000_000)
        c.memset(blocks[i], 1, 100_000_000)
    for block in blocks:
        c.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_kept_also_beyond_two_gigabytes():
    """mallopt takes an int: the largest gave all back after a step of 128 images and more.

    In blocks from malloc itself: small objects that tensors bring between theirs, here and there
    from process to process, decide whether the freed ones join, and with that what is counted.
    """
    command = [sys.executable, "-c", PAGES_ANEW]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = map(int, ended.stdout.split())
    assert second < first / 4
