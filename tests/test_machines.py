"""Two machines with two ranks each: what rank zero chooses for all, and the first rank of a machine reads.

Run as a script, this file forks the ranks; its tests look at what came of it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from shared.ranks import launch
from workers import in_turn

from litgan import checkpoints, commands
from litgan.processes import CHOICE, choose_on_rank_zero, connect, local_rank
from litgan.recipe import Recipe
from litgan.strategy import register

RING = [
    "--config", str(Path(__file__).parents[1] / "configs" / "ring.yaml"), "--data.batch_size=32",
    "--trainer.strategy=adversarial_ddp", "--trainer.devices=2", "--trainer.num_nodes=2",
    "--samples.every=0", "--gradients.every=0", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def refuse() -> None:
    raise ValueError("The culprit: remedy.")


def choices(rank: int, store: dist.Store) -> dict[str, Any]:
    """What a rank gets where each would choose its own number, and then rank zero fails."""
    found = [choose_on_rank_zero(lambda: [os.environ["RANK"], os.getpid()], rank, store) for _ in range(2)]
    with pytest.raises(ValueError if rank == 0 else RuntimeError) as refusal:
        choose_on_rank_zero(refuse, rank, store)
    return {"chosen": found, "refused": str(refusal.value)}


def fits(folder: Path) -> dict[str, Any]:
    """A run of four iterations, its resume, and samples; counts what this rank verifies."""
    verified: list[str] = []
    verify = checkpoints.verify_archive
    checkpoints.verify_archive = lambda path: verified.append(Path(path).name) or verify(path)
    runs = []
    for options in (["--trainer.max_steps=4"], ["--trainer.max_steps=6", "--ckpt_path=last"]):
        recipe = Recipe([*RING, *options, f"--trainer.default_root_dir={folder / 'runs'}"])
        with recipe.run_context():
            recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule, ckpt_path=recipe.ckpt_path)
        runs.append((str(recipe.folder.path), recipe.resumed_at, recipe.model.images_seen, list(verified)))
    last = Path(runs[0][0], "checkpoints", "last.ckpt")
    verified.clear()
    commands.sample(str(last), count=4, out=str(folder / "samples"))
    sampled = list(verified)
    dist.barrier()
    if os.environ["RANK"] == "3":
        last.write_bytes(last.read_bytes()[:-9])
    dist.barrier()
    with pytest.raises(ValueError, match=str(last)) as damage:
        checkpoints.read_together(last)
    return {"runs": runs, "sampled": sampled, "damaged": str(damage.value)}


def rank_of_two_machines(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    os.environ |= {"LOCAL_RANK": str(rank % 2), "GROUP_RANK": str(rank // 2), "WANDB_MODE": "disabled"}
    number, store = connect()  # which rank zero serves until its end
    torch.save({**choices(number, store), **fits(folder)}, folder / f"torchrun-{rank}.pt")


def rank_of_slurm(folder: Path) -> None:
    rank, size = (os.environ.pop(name) for name in ("RANK", "WORLD_SIZE"))
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        del os.environ[name]
    os.environ |= {
        "SLURM_NTASKS": size, "SLURM_NTASKS_PER_NODE": size, "SLURM_JOB_NAME": "gan", "SLURM_JOB_ID": "4711",
        "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
    }  # fmt: skip
    number, store = connect()
    choice = choose_on_rank_zero(lambda: [number], number, store)
    dist.init_process_group("gloo", rank=number, world_size=int(size))  # at the address of the store
    dist.barrier()
    torch.save({"chosen": choice, "local_rank": local_rank()}, folder / f"slurm-{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each rank found, by launcher."""
    folder = tmp_path_factory.mktemp("machines")
    launch(__file__, folder)
    sizes = {"torchrun": 4, "slurm": 2}
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(size)]
        for name, size in sizes.items()
    }


@pytest.mark.spawn
def test_rank_zero_chooses_for_all_before_they_join_a_group(ranks):
    for each in ranks["torchrun"]:
        assert each["chosen"] == ranks["torchrun"][0]["chosen"] and each["chosen"][0][0] == "0"
        assert each["refused"] == "The culprit: remedy."
    assert [each["chosen"] for each in ranks["slurm"]] == [[0], [0]]
    assert [each["local_rank"] for each in ranks["slurm"]] == [0, 1]


@pytest.mark.spawn
def test_all_ranks_are_in_one_run_whose_checkpoint_is_verified_once_on_each_machine(ranks):
    started, resumed = zip(*(each["runs"] for each in ranks["torchrun"]), strict=True)
    folder = started[0][0]
    assert [run[:3] for run in started] == [(folder, 0, 128)] * 4
    assert [run[:3] for run in resumed] == [(folder, 128, 192)] * 4
    assert [run[3] for run in started] == [[]] * 4
    assert [run[3] for run in resumed] == [["last.ckpt"], [], ["last.ckpt"], []]
    assert [each["sampled"] for each in ranks["torchrun"]] == [["last.ckpt"], [], ["last.ckpt"], []]


@pytest.mark.spawn
def test_all_ranks_say_what_one_finds_in_a_damaged_checkpoint(ranks):
    assert len({each["damaged"] for each in ranks["torchrun"]}) == 1


def test_ranks_that_lightning_starts_inherit_the_choice(monkeypatch):
    monkeypatch.setenv(CHOICE, "")
    assert choose_on_rank_zero(lambda: ["runs/ring/a", 7], *connect()) == ["runs/ring/a", 7]
    assert json.loads(os.environ[CHOICE]) == ["runs/ring/a", 7]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_on_rank_zero(refuse, *connect()) == ["runs/ring/a", 7]


if __name__ == "__main__":
    register()
    folder = Path(sys.argv[1])
    in_turn(4, rank_of_two_machines, folder)
    in_turn(2, rank_of_slurm, folder)
