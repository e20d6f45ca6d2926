"""N ranks compute what one rank computes, and the gradients of each network are reduced alone.

One rank and two (gloo) run all of `workers.py`; the tests look at what came of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from shared.ranks import distance, launch
from shared.resuming import same

WORKERS = Path(__file__).with_name("workers.py")
SCENARIOS = ("pictures", "points", "pairs", "residual", "translated", "encoder", "frozen", "bf16")

pytestmark = pytest.mark.spawn


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what each rank computed."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(WORKERS, folder)
    return folder


@pytest.fixture(scope="module")
def one(results: Path) -> dict[str, Any]:
    """What one rank computed."""
    return torch.load(results / "1-0.pt", weights_only=False)


@pytest.fixture(scope="module")
def two(results: Path) -> list[dict[str, Any]]:
    """What each of two ranks computed."""
    return [torch.load(results / f"2-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks_draw_together_what_one_draws(scenario, one, two):
    alone, shares = one[scenario], [rank[scenario] for rank in two]
    assert alone["clock"] == shares[0]["clock"] == shares[1]["clock"]
    assert len(alone["latents"]) >= 40 and len(alone["reals"]) >= 20
    for update, latents in alone["latents"].items():
        assert torch.equal(latents, torch.cat([share["latents"][update] for share in shares])), update
    for reals, *parts in zip(alone["reals"], *(share["reals"] for share in shares), strict=True):
        assert torch.equal(reals, torch.cat(parts))


@pytest.mark.parametrize("scenario", [*SCENARIOS, "compiled", "compressed", "power_sgd"])
def test_replicas_stay_bit_identical(scenario, two):
    assert same(two[0][scenario]["weights"], two[1][scenario]["weights"])


@pytest.mark.parametrize(
    "scenario", ["pictures", "points", "pairs", "residual", "translated", "encoder", "frozen", "compiled"]
)
def test_two_ranks_learn_what_one_learns(scenario, one, two):
    alone, together = one[scenario]["weights"], two[0][scenario]["weights"]
    assert list(alone) == list(together)  # the names in checkpoints
    assert distance(together, alone) < 1e-5


def test_frozen_parts_stay_bit_for_bit_on_all_ranks(one, two):
    for result in (one, *two):
        before, after = result["frozen"]["before"], result["frozen"]["weights"]
        assert len(before) > 3 and all(torch.equal(after[name], value) for name, value in before.items())


def test_two_ranks_measure_what_one_measures(one, two):
    assert all(abs(value) > 1e-3 for value in one["metrics"].values())
    assert one["metrics"] == pytest.approx(two[0]["metrics"], rel=1e-6)
    assert two[0]["metrics"] == two[1]["metrics"]


def test_ranks_share_a_stock_loader_measure_the_same_reals_and_stop_together(one, two):
    alone, (first, second) = one["loader"], (rank["loader"] for rank in two)
    assert alone["clock"] == first["clock"] == second["clock"] == (32, 4, 4)
    assert alone["protocol"] == first["protocol"] == second["protocol"]
    assert same(first["weights"], second["weights"])
    for mine, others in zip(first["reals"], second["reals"], strict=True):
        assert len(mine) == len(others) == 4 and not torch.equal(mine, others)


def test_one_device_needs_no_other_recipe(one):
    assert same(one["points"]["weights"], one["alone"]["weights"])


def test_an_update_sends_the_gradients_of_its_own_network_and_no_byte_more(two):
    for rank in two:
        traffic, sizes = rank["pictures"]["traffic"], rank["pictures"]["sizes"]
        assert traffic == {
            ("discriminator", "discriminator"): 2 * 20 * sizes["discriminator"],
            ("generator", "generator"): 20 * sizes["generator"],
        }


def test_micro_batches_are_reduced_once_an_update(two):
    traffic, weights = two[0]["pairs"]["traffic"], two[0]["pairs"]["weights"]
    for name in ("generator", "discriminator"):
        size = sum(value.nbytes for key, value in weights.items() if key.startswith(f"{name}."))
        assert traffic[name, name] == 20 * size


def test_a_third_network_has_its_own_reducer(two):
    traffic = two[0]["encoder"]["traffic"]
    assert set(traffic) == {(name, name) for name in ("generator", "discriminator", "encoder")}
    assert traffic["encoder", "encoder"] == 20 * 4 * (2 * 4 + 4)


def test_the_stock_strategy_computes_the_same_with_twice_the_bytes(two):
    stock, own = two[0]["stock"]["stock"], two[0]["stock"]["ours"]
    assert same(stock["weights"], own["weights"])
    everything, needed = two[0]["stock"]["traffic"]
    assert 0 < needed <= everything / 2


@pytest.mark.parametrize(("scenario", "bound"), [("compressed", 0.02), ("power_sgd", 0.5)])
def test_communication_hooks_reach_every_reducer(scenario, bound, two):
    """The encoder's update changes no other network: its scenario is the uncompressed one."""
    exact, compressed = two[0]["encoder"]["weights"], two[0][scenario]["weights"]
    for network in ("generator", "discriminator"):
        of_network = {name: value for name, value in compressed.items() if name.startswith(f"{network}.")}
        assert 1e-7 < distance(of_network, {name: exact[name] for name in of_network}) < bound


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("astray", "Rank 1 resumes after 1,024 images and rank 0 after 0: give all of them the same"),
        ("uneven", "batch_size 9 is global and cannot be shared equally by 2 processes: give 8 or 10."),
        ("idle", "discriminator.forgotten.weight got no gradient in an update of discriminator"),
        ("stock", "give trainer.strategy adversarial_ddp."),
    ],
)
def test_what_two_ranks_cannot_do_is_said_by_both(what, sentence, two):
    for rank in two:
        assert sentence in rank["refusals"][what]
