from __future__ import annotations

import multiprocessing
import subprocess
from itertools import islice

import pytest
import torch

from litgan.data.files import threaded
from litgan.data.loader import (
    DiskLoader,
    InMemoryLoader,
    ResumableBatchSampler,
    free_memory,
    gather,
    to_unit_range,
)

SIZE = 50
IMAGES = torch.randint(0, 256, (SIZE, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(SIZE)  # each sample's own index, so that batches tell what they are made of


class Files:
    """Map-style and without a tensor in sight, as files are."""

    fingerprint = "files"

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.broken:
            raise ValueError(f"file {index} is damaged: replace it.")
        return IMAGES[index].clone()


def chosen(batches) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches]


def resident(batch_size=8, *, seed=0, rank=0, world_size=1, seen=0, **options) -> InMemoryLoader:
    sampler = ResumableBatchSampler(
        SIZE, batch_size, seed=seed, rank=rank, world_size=world_size, images_seen=lambda: seen
    )
    return InMemoryLoader(IMAGES, LABELS, sampler, **options)


def test_an_epoch_shows_each_sample_at_most_once_and_drops_the_remainder():
    epoch = chosen(resident(8))
    assert [len(batch) for batch in epoch] == [8] * 6 == [8] * len(resident(8))
    shown = [index for batch in epoch for index in batch]
    assert len(set(shown)) == 48 and set(shown) <= set(range(SIZE))


def test_order_is_a_function_of_seed_and_epoch():
    first, second = chosen(resident(seen=0)), chosen(resident(seen=48))
    assert first == chosen(resident(seen=0))
    assert first != second and first != chosen(resident(seed=1)) and first != sorted(first)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_what_one_rank_sees(world_size, flip):
    whole = list(resident(flip=flip))
    ranks = [list(resident(rank=rank, world_size=world_size, flip=flip)) for rank in range(world_size)]
    assert len(whole) == len(ranks[0]) == 6
    for (samples, labels), *shares in zip(whole, *ranks, strict=True):
        assert torch.equal(samples, torch.cat([share for share, _ in shares]))
        assert torch.equal(labels, torch.cat([share for _, share in shares]))


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("done", [1, 4, 5])
def test_a_restart_in_mid_epoch_goes_on_with_the_next_batch(epoch, done):
    start = epoch * 48
    whole = list(resident(seen=start, flip=True))
    loader = resident(seen=start + done * 8, flip=True)
    assert len(loader) == 6  # the length of an epoch does not depend on where it is taken up
    for rest, expected in zip(loader, whole[done:], strict=True):
        assert torch.equal(rest[0], expected[0]) and torch.equal(rest[1], expected[1])


def test_the_clock_is_read_when_the_first_batch_is_drawn_and_again_each_epoch():
    clock = [0]
    loader = InMemoryLoader(IMAGES, LABELS, ResumableBatchSampler(SIZE, 8, images_seen=lambda: clock[0]))
    shown = []
    for _ in range(3):  # epochs cut short after 4 of 6 batches
        for _, labels in islice(loader, 4):
            shown.append(labels.tolist())
            clock[0] += 8
    assert shown == (chosen(resident(seen=0)) + chosen(resident(seen=48)))[:10]  # 4, then the 2 left, then 4


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.spawn)])
@pytest.mark.parametrize("flip", [False, True])
def test_both_loaders_give_the_same_batches_bit_for_bit(flip, num_workers):
    clock = [16]
    options = {"seed": 3, "rank": 1, "world_size": 2, "images_seen": lambda: clock[0]}
    memory = InMemoryLoader(IMAGES, LABELS, ResumableBatchSampler(SIZE, 8, **options), flip=flip)
    disk = DiskLoader(
        Files(), LABELS, ResumableBatchSampler(SIZE, 8, **options), flip=flip, num_workers=num_workers
    )
    for clock[0], left in ((16, 4), (48, 6)):  # persistent workers are asked for a second epoch, too
        pairs = list(zip(memory, disk, strict=True))
        assert len(pairs) == left
        for (samples, labels), (streamed, streamed_labels) in pairs:
            assert samples.dtype == streamed.dtype == torch.float32
            assert samples.stride() == streamed.stride()
            assert torch.equal(samples, streamed) and torch.equal(labels, streamed_labels)


def test_loaders_leave_the_global_random_stream_alone():
    state = torch.get_rng_state()
    list(resident(flip=True))
    list(DiskLoader(Files(), None, ResumableBatchSampler(SIZE, 8), flip=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.spawn)])
def test_a_damaged_file_is_reported_in_one_sentence_from_any_process(num_workers):
    loader = DiskLoader(Files(broken=7), LABELS, ResumableBatchSampler(SIZE, 25), num_workers=num_workers)
    with pytest.raises(ValueError, match=r"\Afile 7 is damaged: replace it\.\Z"):
        list(loader)


def test_labels_are_none_where_there_are_none():
    assert {labels for _, labels in InMemoryLoader(IMAGES, None, ResumableBatchSampler(SIZE, 8))} == {None}


def test_samples_are_the_stored_ones_in_minus_one_to_one():
    for samples, labels in resident():
        expected = IMAGES[labels].double() / 127.5 - 1
        torch.testing.assert_close(samples.double(), expected, rtol=0, atol=1e-7)
        assert samples.is_contiguous(memory_format=torch.channels_last)


def test_unit_range_is_exact_at_both_ends_symmetric_and_leaves_floats_alone():
    levels = to_unit_range(torch.arange(256, dtype=torch.uint8))
    assert levels[0] == -1 and levels[255] == 1 and torch.equal(levels, -levels.flip(0))
    points = torch.randn(5, 2)
    assert torch.equal(to_unit_range(points), points)


def test_flips_mirror_about_half_of_the_samples_and_differ_between_epochs():
    def mirrored(seen: int) -> torch.Tensor:
        is_mirrored = torch.zeros(SIZE, dtype=torch.bool)
        for samples, labels in resident(10, seen=seen, flip=True):
            plain = to_unit_range(IMAGES[labels])
            flipped = (samples == plain.flip(-1)).flatten(1).all(1)
            assert torch.equal(flipped, ~(samples == plain).flatten(1).all(1))  # one or the other, whole
            is_mirrored[labels] = flipped
        return is_mirrored

    assert 10 <= mirrored(0).sum() <= 40  # p = 1e-5 for a fair coin
    assert not torch.equal(mirrored(0), mirrored(50))


def test_memory_decides_where_samples_wait_and_not_what_is_shown():
    expected = list(resident(memory="device"))
    for memory in ("host", "auto"):
        for got, wanted in zip(resident(memory=memory), expected, strict=True):
            assert torch.equal(got[0], wanted[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("memory", ["device", "host"])
def test_a_gpu_gets_the_batches_of_the_cpu(memory):
    on_gpu = resident(flip=True, memory=memory, device="cuda")
    assert on_gpu.samples.is_cuda == (memory == "device")
    for (samples, labels), (expected, expected_labels) in zip(on_gpu, resident(flip=True), strict=True):
        assert samples.is_cuda and labels.is_cuda and samples.stride() == expected.stride()
        assert torch.equal(samples.cpu(), expected) and torch.equal(labels.cpu(), expected_labels)


@pytest.mark.parametrize(
    ("batch_size", "world_size", "sentence"),
    [
        (10, 4, "shared equally by 4 processes: give 8 or 12."),
        (2, 4, "shared equally by 4 processes: give 4."),
        (51, 1, "batch_size 51 does not fit"),
        (0, 1, "batch_size 0 does not fit"),
    ],
)
def test_impossible_batch_sizes_are_refused(batch_size, world_size, sentence):
    with pytest.raises(ValueError, match=sentence):
        ResumableBatchSampler(SIZE, batch_size, world_size=world_size)


def test_gather_reads_files_and_tensors_alike():
    indices = torch.tensor([4, 0, 49, 4])
    assert torch.equal(gather(Files(), indices), IMAGES[indices])
    assert torch.equal(gather(IMAGES, indices), IMAGES[indices])


def test_threaded_keeps_order_and_reports_the_first_failure():
    assert list(threaded(lambda n: n * n, range(10), ahead=3)) == [n * n for n in range(10)]
    with pytest.raises(ValueError, match="file 7"):
        list(threaded(Files(broken=7).__getitem__, range(SIZE), ahead=4))


def test_free_memory_of_the_host_is_plausible():
    assert 2**26 < free_memory() <= 2**62


@pytest.mark.spawn
def test_readers_survive_the_signals_that_all_processes_of_a_job_get():
    loader = DiskLoader(Files(), LABELS, ResumableBatchSampler(SIZE, 5), num_workers=1)
    batches = iter(loader)
    first = next(batches)
    (child,) = (str(child.pid) for child in multiprocessing.active_children())
    for name in ("INT", "HUP", "USR1", "TERM"):
        subprocess.run(["kill", f"-{name}", child], check=True)
    assert len([first, *batches]) == SIZE // 5


@pytest.mark.spawn
def test_readers_end_when_the_process_that_started_them_says_so():
    loader = DiskLoader(Files(), LABELS, ResumableBatchSampler(SIZE, 5), num_workers=2)
    batches = iter(loader)
    next(batches)
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()  # as Python does when it exits
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]


def test_a_balanced_epoch_shows_every_class_equally_often():
    labels = torch.tensor([0] * 30 + [1] * 7 + [2] * 3)
    sampler = ResumableBatchSampler(40, 8, balance=labels)
    order = torch.cat([torch.tensor(batch) for batch in sampler])
    assert labels[order].bincount().tolist() == [14, 13, 13]
    assert set(order[labels[order] == 1].tolist()) == set(range(30, 37)), "the scarce ones come all"
    assert len(set(order[labels[order] == 0].tolist())) == 14, "none of the others twice"
    assert order.tolist() != torch.cat([torch.tensor(b) for b in ResumableBatchSampler(40, 8)]).tolist()
    ranks = [list(ResumableBatchSampler(40, 8, rank=rank, world_size=2, balance=labels)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == list(sampler)
