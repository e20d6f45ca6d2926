from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
from itertools import islice

import pytest
import torch
from PIL import Image

from litgan.data import ImageFolder
from litgan.data.files import threaded
from litgan.data.loader import (
    Loader,
    ResumableBatchSampler,
    default_workers,
    free_memory,
    gather,
    to_unit_range,
)

SIZE = 50
IMAGES = torch.randint(0, 256, (SIZE, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(SIZE)  # each sample's own index


class Files:
    """Map-style, as files are."""

    fingerprint = "files"

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.broken:
            raise ValueError(f"file {index} is damaged: replace it.")
        return IMAGES[index].clone()


def sampler(batch_size=8, *, seen=0, **options) -> ResumableBatchSampler:
    return ResumableBatchSampler(SIZE, batch_size, images_seen=lambda: seen, **options)


def in_memory(batch_size=8, *, seed=0, rank=0, world_size=1, seen=0, **options) -> Loader:
    own = sampler(batch_size, seed=seed, rank=rank, world_size=world_size, seen=seen)
    return Loader(IMAGES, LABELS, own, **options)


def on_disk(batch_size=5, files=None, **options) -> Loader:
    return Loader(files or Files(), LABELS, sampler(batch_size), **options)


def indices(loader) -> list[list[int]]:
    return [labels.tolist() for _, labels in loader]


def same(some, others) -> bool:
    pairs = list(zip(some, others, strict=True))
    return bool(pairs) and all(torch.equal(x, y) for a, b in pairs for x, y in zip(a, b, strict=True))


def test_an_epoch_has_each_sample_at_most_once_and_depends_on_seed_and_epoch():
    epoch = indices(in_memory())
    assert [len(batch) for batch in epoch] == [8] * 6 == [8] * len(in_memory())
    assert len({index for batch in epoch for index in batch}) == 48
    others = [indices(in_memory(seen=48)), indices(in_memory(seed=1)), sorted(epoch)]
    assert epoch == indices(in_memory()) and epoch not in others


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_get_the_batches_of_one(world_size):
    ranks = [in_memory(rank=rank, world_size=world_size, flip=True) for rank in range(world_size)]
    joined = [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
    assert same(in_memory(flip=True), joined)


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("done", [1, 5])
def test_a_restart_in_mid_epoch_continues_with_the_next_batch(epoch, done):
    start = epoch * 48
    rest = in_memory(seen=start + done * 8, flip=True)
    assert same(rest, list(in_memory(seen=start, flip=True))[done:])
    assert len(rest) == 6, "of a whole epoch"


def test_the_clock_is_read_anew_in_each_epoch():
    clock, got = [0], []
    loader = Loader(IMAGES, LABELS, ResumableBatchSampler(SIZE, 8, images_seen=lambda: clock[0]))
    for _ in range(3):  # epochs cut short after 4 of 6 batches
        for _, labels in islice(loader, 4):
            got.append(labels.tolist())
            clock[0] += 8
    assert got == (indices(in_memory()) + indices(in_memory(seen=48)))[:10], "4, then the 2 left, then 4"


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.spawn)])
def test_both_loaders_give_the_same_batches_bit_for_bit(num_workers):
    clock, state = [16], torch.get_rng_state()
    own = ResumableBatchSampler(SIZE, 8, seed=3, rank=1, world_size=2, images_seen=lambda: clock[0])
    memory = Loader(IMAGES, LABELS, own, flip=True)
    disk = Loader(Files(), LABELS, own, flip=True, num_workers=num_workers)
    for clock[0], left in ((16, 4), (48, 6)):  # persistent workers read a second epoch, too
        pairs = list(zip(memory, disk, strict=True))
        assert len(pairs) == left and same(*zip(*pairs, strict=True))
        assert all(one.stride() == other.stride() for (one, _), (other, _) in pairs)
    assert torch.equal(state, torch.get_rng_state()), "the global random stream is not used"


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.spawn)])
def test_a_damaged_file_is_reported_in_one_sentence_from_any_process(num_workers, tmp_path):
    for index in range(12):
        Image.fromarray(IMAGES[index].permute(1, 2, 0).numpy()).resize((64, 64)).save(
            tmp_path / f"{index}.png"
        )
    data = (tmp_path / "7.png").read_bytes()
    (tmp_path / "7.png").write_bytes(data[: len(data) // 2])
    folder = ImageFolder(str(tmp_path), resolution=64, memory="disk", batch_size=4, num_workers=num_workers)
    with pytest.raises(ValueError, match=r"7\.png") as raised:
        list(folder.train_dataloader())
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.spawn)])
def test_a_fault_of_somebody_elses_data_set_keeps_its_traceback(num_workers):
    with pytest.raises(ValueError, match="file 7 is damaged") as raised:
        list(on_disk(25, Files(broken=7), num_workers=num_workers))
    assert num_workers == 0 or "in __getitem__" in str(raised.value)


def test_samples_are_the_stored_ones_in_minus_one_to_one():
    for samples, labels in in_memory():
        torch.testing.assert_close(samples.double(), IMAGES[labels].double() / 127.5 - 1, rtol=0, atol=1e-7)
        assert samples.is_contiguous(memory_format=torch.channels_last)
    levels = to_unit_range(torch.arange(256, dtype=torch.uint8))
    assert levels[0] == -1 and levels[255] == 1 and torch.equal(levels, -levels.flip(0))
    points = torch.randn(5, 2)
    assert torch.equal(to_unit_range(points), points), "floats keep their values"


def test_flips_mirror_about_half_of_the_samples_and_differ_between_epochs():
    def mirrored(seen: int) -> torch.Tensor:
        is_mirrored = torch.zeros(SIZE, dtype=torch.bool)
        for samples, labels in in_memory(10, seen=seen, flip=True):
            plain = to_unit_range(IMAGES[labels])
            flipped = (samples == plain.flip(-1)).flatten(1).all(1)
            assert torch.equal(flipped, ~(samples == plain).flatten(1).all(1)), "one or the other, whole"
            is_mirrored[labels] = flipped
        return is_mirrored

    assert 10 <= mirrored(0).sum() <= 40, "p = 1e-5 for a fair coin"
    assert not torch.equal(mirrored(0), mirrored(50))


@pytest.mark.parametrize("memory", ["host", "auto"])
def test_memory_does_not_change_the_batches(memory):
    assert same(in_memory(memory=memory), in_memory(memory="device"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("memory", ["device", "host"])
def test_a_gpu_gets_the_batches_of_the_cpu(memory):
    on_gpu = in_memory(flip=True, memory=memory, device="cuda")
    assert on_gpu.samples.is_cuda == (memory == "device")
    batches = list(on_gpu)
    assert all(samples.is_cuda and labels.is_cuda for samples, labels in batches)
    assert same([(samples.cpu(), labels.cpu()) for samples, labels in batches], in_memory(flip=True))


@pytest.mark.parametrize(
    ("batch_size", "world_size", "sentence"),
    [(10, 4, "give 8 or 12"), (2, 4, "give 4"), (51, 1, "batch_size 51 .* give 1 to 50"), (0, 1, "0 .* 50")],
)
def test_impossible_batch_sizes_are_refused(batch_size, world_size, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampler(batch_size, world_size=world_size)


def test_many_files_are_read_in_order_and_the_first_failure_is_reported():
    chosen = torch.tensor([4, 0, 49, 4])
    assert torch.equal(gather(Files(), chosen), IMAGES[chosen])
    assert list(threaded(lambda n: n * n, range(10), ahead=3)) == [n * n for n in range(10)]
    with pytest.raises(ValueError, match="file 7"):
        list(threaded(Files(broken=7).__getitem__, range(SIZE), ahead=4))


def test_free_memory_of_the_host_is_plausible():
    assert 2**26 < free_memory() <= 2**62


@pytest.mark.spawn
def test_workers_survive_the_signals_that_all_processes_of_a_job_get():
    gc.collect()  # workers of other tests, whose tracebacks hold them
    batches = iter(on_disk(num_workers=1))
    first = next(batches)
    (child,) = (str(child.pid) for child in multiprocessing.active_children())
    for name in ("INT", "HUP", "USR1", "TERM"):
        subprocess.run(["kill", f"-{name}", child], check=True)
    assert len([first, *batches]) == SIZE // 5


@pytest.mark.spawn
def test_workers_end_when_the_process_that_started_them_ends_them():
    gc.collect()
    batches = iter(on_disk(num_workers=2))
    next(batches)
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()  # as Python does when it exits
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]


def test_a_balanced_epoch_has_every_class_equally_often():
    labels = torch.tensor([0] * 30 + [1] * 7 + [2] * 3)
    balanced = ResumableBatchSampler(40, 8, balance=labels)
    order = torch.tensor(list(balanced)).flatten()
    assert labels[order].bincount().tolist() == [14, 13, 13]
    assert set(order[labels[order] == 1].tolist()) == set(range(30, 37)), "all of the rare ones"
    assert len(set(order[labels[order] == 0].tolist())) == 14, "none of the others twice"
    ranks = [ResumableBatchSampler(40, 8, rank=rank, world_size=2, balance=labels) for rank in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == list(balanced)


def test_a_gpu_gets_workers_of_its_own_share_of_the_cores(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(24), raising=False)
    assert [default_workers(gpu, processes) for processes in (1, 2, 4, 8, 32)] == [8, 8, 6, 3, 1]
    assert default_workers(torch.device("cpu"), 1) == 0
