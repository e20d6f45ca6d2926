from __future__ import annotations

import pytest
import torch

from litgan.translation.pool import ImagePool


def fakes(first: int, count: int):
    """Image i is the number i at each pixel."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2)


def run(pool, draws, first=0, step=4):
    """The numbers that come out, batch by batch."""
    out = []
    for start in range(0, len(draws), step):
        part = draws[start : start + step]
        out += pool(fakes(first + start, len(part)), first + start, part)[:, 0, 0, 0].tolist()
    return out


def test_it_fills_up_then_exchanges_in_order():
    pool = ImagePool(3, (1, 2, 2))
    draws = torch.tensor([[0.0, 0.0]] * 3 + [[0.4, 0.5], [0.6, 0.5], [0.1, 0.4], [0.49, 0.99], [0.2, 0.0]])
    assert run(pool, draws) == [0, 1, 2, 1, 4, 3, 2, 0]
    assert pool.images[:, 0, 0, 0].tolist() == [7, 5, 6]


def test_half_of_the_fakes_are_earlier_ones_and_none_is_lost_or_twice_there():
    pool, draws = ImagePool(50, (1, 2, 2)), torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    out = torch.tensor(run(pool, draws, step=16))
    new = (out == torch.arange(4000)).float()
    assert new[:50].all() and new[50:].mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(torch.cat([out[50:], pool.images[:, 0, 0, 0]]).sort()[0], torch.arange(4000.0))


def test_a_pool_from_a_checkpoint_goes_on_as_the_uncut_one():
    draws = torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    uncut, resumed = ImagePool(8, (1, 2, 2)), ImagePool(8, (1, 2, 2))
    run(uncut, draws[:20])
    resumed.load_state_dict(uncut.state_dict())
    assert run(resumed, draws[20:], first=20) == run(uncut, draws[20:], first=20)
