"""What each recipe owes on a simulated device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from shared.recipes import OverRecipes, adversary_in_second_iteration
from shared.simulation.launch import complaints, simulate


class Simulations(OverRecipes):
    """Subclasses say how many kernels an iteration of each recipe launches: the first one, in which all lazy
    penalties are due and optimizers make their state, and the second, in which a late adversary is let in.
    """

    launches: ClassVar[Mapping[str, tuple[int, int]]] = {}

    @pytest.mark.heavy
    def test_it_fits_a_simulated_device(self, recipe: Path, pictures: Path, simulated_device: Path) -> None:
        """All tensors are there, nothing waits or is float64, and Metal has all operations."""
        known = yaml.safe_load(recipe.read_text())
        late = adversary_in_second_iteration(known["model"].get("init_args", known["model"]))
        options = [*self.offline(known["data"], pictures), *late]
        found = simulate(simulated_device, "--config", recipe, *options)
        measured = tuple(iteration.launches for iteration in found)
        print(recipe.stem, measured, "launches")
        assert recipe.stem in self.launches, f'new: add "{recipe.stem}": {measured} to `launches`'
        assert list(complaints(found, self.launches[recipe.stem])) == []
