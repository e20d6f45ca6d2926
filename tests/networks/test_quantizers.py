"""Quantizers; as a script it forks one rank, then two, whose codebooks learn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import workers
from contract import refuses
from shared import ranks

from litgan.networks import FiniteScalarQuantizer, VectorQuantizer
from litgan.networks.quantizers import perplexity

LEVELS = (4, 3, 2)


def quantizer(num_codes=6, dim=3, **options):
    torch.manual_seed(0)
    made = VectorQuantizer(num_codes, dim, **options)
    with torch.no_grad():
        made.codebook.normal_()
    return made


def batches(count, size=8, seed=1):
    """Vectors of 3 dimensions at 4 positions."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 3, 4, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("learning", ["ema", "gradient"])
@pytest.mark.parametrize("positions", [(), (7,), (4, 5)])
def test_vectors_become_the_nearest_rows_and_gradients_pass_by(learning, positions):
    made, vectors = quantizer(learning=learning).eval(), torch.randn(2, 3, *positions, requires_grad=True)
    quantized, codes, loss = made(vectors)
    rows = vectors.movedim(1, -1).reshape(-1, 3)
    expected = torch.cdist(rows, made.codebook).argmin(1)
    assert torch.equal(codes.flatten(), expected) and codes.shape == (2, *positions) and loss.shape == (2,)
    torch.testing.assert_close(quantized.movedim(1, -1).reshape(-1, 3), made.codebook[expected])
    assert torch.equal(made.lookup(codes).movedim(1, -1).reshape(-1, 3), made.codebook[expected])
    pull = torch.randn_like(quantized)
    (gradient,) = torch.autograd.grad((quantized * pull).sum(), vectors)
    assert torch.equal(gradient, pull)


def test_commitment_weighs_what_moves_the_encoder_and_not_what_moves_the_codebook():
    made = quantizer(num_codes=2, dim=1, learning="gradient", commitment=0.5)
    made.codebook.data = torch.tensor([[0.0], [4.0]])
    vectors = torch.tensor([[[1.0, 3.0]], [[0.0, 6.0]]], requires_grad=True)
    _, codes, loss = made(vectors)
    assert codes.tolist() == [[0, 1], [0, 1]]
    assert loss.tolist() == [1.5 * (1 + 1) / 2, 1.5 * (0 + 4) / 2], "1 + commitment, of means over positions"
    loss.sum().backward()
    assert vectors.grad.tolist() == [[[0.5, -0.5]], [[0.0, 1.0]]], "commitment * (z - e)"
    assert made.codebook.grad.tolist() == [[-1.0], [-1.0]], "e - z"
    averaged = quantizer(num_codes=2, dim=1, commitment=0.5).eval()
    averaged.codebook.copy_(made.codebook)
    assert averaged(vectors)[2].tolist() == [0.5, 1.0]


def test_rows_are_running_averages_of_their_vectors():
    made = quantizer(num_codes=3, dim=1, decay=0.75, restart=0.0)
    made.codebook.copy_(torch.tensor([[0.0], [10.0], [100.0]]))
    made.sums.copy_(made.codebook)  # as if each had been seen once
    made(torch.tensor([[[1.0, 2.0, 3.0, 8.0]]]))
    assert made.counts.tolist() == [0.75 + 0.75, 0.75 + 0.25, 0.75]
    assert made.sums.flatten().tolist() == [1.5, 7.5 + 2.0, 75.0]
    assert made.codebook.flatten().tolist() == pytest.approx([1.0, 9.5, 100.0], rel=1e-4)
    made(torch.tensor([[[6.0]]]))
    assert made.codebook[1].item() == pytest.approx((0.75 * 9.5 + 0.25 * 6) / (0.75 + 0.25), rel=1e-4)


def test_the_codebook_begins_in_the_first_batch_and_dead_codes_restart():
    first, second = batches(2)
    made = quantizer()
    made(first)
    distances = torch.cdist(made.codebook, first.movedim(1, -1).reshape(-1, 3))
    assert distances.amin(1).max() < 1e-3 and len(distances.argmin(1).unique()) == 6
    made.codebook[2:] = made.sums[2:] = 100.0  # far from all vectors
    for _ in range(400):
        seen = made(second)[1]
    assert len(seen.unique()) == 6 and made.codebook.abs().max() < 10
    stuck = quantizer(restart=0.0, decay=0.9)
    stuck.codebook[2:] = stuck.sums[2:] = 100.0
    for _ in range(40):
        stuck(second)
    assert set(stuck(second)[1].unique().tolist()) <= {0, 1}


def test_the_codebook_learns_in_training_where_gradients_are_recorded_and_only_there():
    made, (vectors,) = quantizer(), batches(1)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with torch.no_grad():
        made(vectors)
    made.eval()(vectors)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])
    made.train()(vectors)
    assert all(not torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_resumed_codebook_is_that_of_the_uncut_run():
    uncut, resumed = quantizer(), VectorQuantizer(6, 3)
    for step, vectors in enumerate(batches(8)):
        if step == 4:
            resumed.load_state_dict(uncut.state_dict())
        for each in (uncut, resumed)[: 2 if step >= 4 else 1]:
            each(vectors)
    for name, value in uncut.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


@pytest.mark.spawn
def test_two_ranks_learn_the_codebook_of_one(tmp_path: Path) -> None:
    ranks.launch(__file__, tmp_path)
    alone, *shares = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert all(torch.equal(shares[0][name], value) for name, value in shares[1].items())
    assert shares[0].pop("updates") == alone.pop("updates") == 8
    assert ranks.distance(shares[0], alone) < 1e-5


def test_scalars_have_their_levels_and_codes_are_numbered_by_them():
    made = FiniteScalarQuantizer(LEVELS)
    grid = torch.linspace(-6, 6, 41)
    vectors = torch.cartesian_prod(grid, grid, grid).T[None]
    quantized, codes, loss = made(vectors)
    values = ([-1, -0.5, 0, 0.5], [-1, 0, 1], [-1, 0])
    for dim, expected in enumerate(values):
        assert quantized[0, dim].unique().tolist() == expected
    assert codes.unique().tolist() == list(range(24)) and made.num_codes == 24 and not loss.any()
    assert torch.equal(made.lookup(codes), quantized)
    number = torch.arange(24)
    digits = torch.stack([number % 4, number // 4 % 3, number // 12])
    expected = torch.stack([torch.tensor(each)[row] for each, row in zip(values, digits, strict=True)])
    assert torch.equal(made.lookup(number[None])[0], expected)


def test_scalars_pass_the_gradient_of_their_bound():
    made = FiniteScalarQuantizer((5,))
    vectors = torch.linspace(-2, 2, 9)[None, None].requires_grad_()
    (gradient,) = torch.autograd.grad(made(vectors)[0].sum(), vectors)
    torch.testing.assert_close(gradient, 0.999 * (1 - vectors.detach().tanh() ** 2))


@pytest.mark.parametrize("made", [quantizer(), FiniteScalarQuantizer(LEVELS)])
def test_half_precision_around_it_changes_nothing(made):
    (vectors,) = batches(1)
    exact = made.eval()(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(made(vectors), exact, strict=True))


def test_perplexity_counts_codes_in_equal_use():
    assert perplexity(torch.tensor([[3, 5], [9, 3], [5, 9]]), 10).item() == pytest.approx(3)
    assert perplexity(torch.tensor([0, 0, 0, 7]), 8).item() == pytest.approx(0.75**-0.75 * 0.25**-0.25)


def test_what_cannot_be_is_named():
    refuses(lambda: VectorQuantizer(learning="kmeans"), "no learning 'kmeans'")
    refuses(lambda: VectorQuantizer(8, 4, decay=1.0), "decay 1.0")
    refuses(lambda: FiniteScalarQuantizer((8, 1)), r"levels \[8, 1\]")


def learn(folder: Path) -> None:
    """One rank's share of eight batches."""
    dist.init_process_group("gloo")
    made = quantizer()
    for vectors in batches(8):
        made(vectors.chunk(workers.WORLD)[workers.RANK])
    torch.save(made.state_dict(), folder / f"{workers.WORLD}-{workers.RANK}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    for world_size in (1, 2):
        workers.in_turn(world_size, learn, Path(sys.argv[1]))
