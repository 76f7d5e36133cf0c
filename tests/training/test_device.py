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
from torch import nn

from caltech.errors import InputError
from caltech.train import train
from caltech.training import device
from caltech.training.optimizers import optimizer_of
from tests.observers import TINY, Doing, terminate


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


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"device={name} is not available.*device=cpu"):
        device.choose_device(name)


def test_mps_is_taken_when_typed_and_its_limits_are_told(monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.choose_device("auto").type != "mps"
    assert device.choose_device("mps").type == "mps"
    assert "device=mps" in caplog.text


def test_an_answer_does_not_wait_for_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device, "claim_gpu", lambda _: pytest.fail("claimed"))
    assert device.choose_device("auto", gpu_share=None).type == "cuda"


def test_where_it_computes_does_not_decide_the_key(configure):
    typed = ["compile=true", "deterministic=true", "device=mps"]
    assert {configure(override).key for override in typed} == {configure().key}


WEIGHT = [nn.Parameter(torch.ones(3))]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_step_is_fused_on_cuda_alone_and_unless_the_config_says_how():
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        assert device.fused(kind(WEIGHT), {"lr": 0.1}, CUDA)
        assert not device.fused(kind(WEIGHT), {"lr": 0.1}, CPU)
        assert not device.fused(kind(WEIGHT), {"foreach": True}, CUDA)
    assert not device.fused(torch.optim.Rprop(WEIGHT), {}, CUDA)
    damped = torch.optim.SGD(WEIGHT, momentum=0.9, dampening=0.1)
    assert not device.fused(damped, {}, CUDA)


@pytest.mark.parametrize("option", ["sgd", "adam", "adamw", "sgd momentum=0"])
def test_a_fused_step_after_one_that_overflowed_is_as_one_that_is_not_fused(configure, option):
    """As float16 begins on a GPU: the scaler skips the first step. torch fuses on a CPU, too."""
    cfg = configure(*f"optimizer={option} lr=0.1".split())
    ends = []
    for where in (CPU, CUDA):
        weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        network = nn.ParameterList([weight])
        optimizer = optimizer_of(cfg.optimizer, network, dict, where)
        assert optimizer.param_groups[0]["fused"] is (True if where == CUDA else None)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for gradient in (float("inf"), 1.0, -2.0, 0.5):
            optimizer.zero_grad()
            scaler.scale(weight.sum() * gradient).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(weight.detach())
    assert ends[0].isfinite().all() and ends[0][0] != 1
    torch.testing.assert_close(*ends)


def test_a_checkpoint_of_another_device_does_not_say_how_to_step():
    """A fused optimizer's, as a GPU has it, and one that is not."""
    elsewhere, here = torch.optim.Adam(WEIGHT, fused=True), torch.optim.Adam(WEIGHT, lr=0.5)
    here.register_load_state_dict_pre_hook(device.step_as_built)
    WEIGHT[0].grad = torch.ones(3)
    elsewhere.step()
    here.load_state_dict(elsewhere.state_dict())
    assert (here.param_groups[0]["fused"], here.param_groups[0]["lr"]) == (None, 0.001)
    here.step()


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_is_cuda_s_and_of_the_present_job(wanted):
    try:
        device.be_deterministic(wanted, CUDA)
        assert torch.are_deterministic_algorithms_enabled() is wanted
        assert torch.backends.cudnn.benchmark is not wanted
    finally:
        device.be_deterministic(True, CPU)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_an_operation_that_cannot_be_deterministic_is_one_message():
    said = "pool_backward_cuda does not have a deterministic implementation, but you set '...'"
    told = pytest.raises(InputError, match=r"pool_backward_cuda has no .*deterministic=false")
    with told, device.explaining_determinism():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="memory"), device.explaining_determinism():
        raise RuntimeError("out of memory")


def test_compile_without_a_compiler_is_one_message(configure, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", fail)
    cfg = configure(*TINY, "compile=true")
    with pytest.raises(InputError, match=r"compile=true .* no C\+\+ compiler.*compile=false"):
        train(cfg)
    assert not Path(cfg.directory).exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_by_a_thread_each_come_in_order_and_leave_the_threads_as_they_were(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = list(device.each(lambda item: (item, torch.get_num_threads()), range(9)))
        assert found == [(item, 1) for item in range(9)]
        with pytest.raises(ZeroDivisionError):
            list(device.each(lambda item: 1 // item, [1, 0]))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_compiled_is_the_same_up_to_rounding():
    """A step's loss and gradients within 1e-5; dropout draws alike."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten()
    network, images = nn.Sequential(*layers, nn.Linear(288, 4)), torch.rand(16, 3, 8, 8)
    found = []
    for one in (network, device.compiled(network, CPU)):
        torch.manual_seed(1)
        network.zero_grad()
        loss = one(images).square().mean()
        loss.backward()
        found.append([loss, *(p.grad.clone() for p in network.parameters())])
    for plain, compiled in zip(*found, strict=True):
        assert torch.allclose(plain, compiled, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_run_is_a_run(configure):
    """Interrupted and gone on with, by a cached head: its results within a thousandth."""
    common = [*TINY, "freeze=backbone", "augment=flip"]
    cfgs = [configure(*common, f"compile={on}", f"study={on}") for on in ("false", "true")]
    plain = train(cfgs[0])
    with pytest.raises(SystemExit):
        train(cfgs[1], observer=Doing(terminate, at_step=3))
    compiled = train(cfgs[1])
    assert compiled.key == plain.key
    assert compiled.last == pytest.approx(plain.last, rel=1e-3)
