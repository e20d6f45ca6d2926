"""A loss that goes wrong in one update of one network."""

from __future__ import annotations

from litgan.losses import NonSaturating


class Spoiled(NonSaturating):
    """Its value (or only its gradient) is multiplied by `factor` in call `when` of one network's loss."""

    def __init__(self, whose: str, when: int, factor: float, gradient: bool = False) -> None:
        self.whose, self.when, self.factor, self.gradient = whose, when, factor, gradient
        self.calls = {"discriminator": 0, "generator": 0}

    def spoil(self, name, terms):
        call, self.calls[name] = self.calls[name], self.calls[name] + 1
        if (name, call) != (self.whose, self.when):
            return terms
        if self.gradient:
            terms.register_hook(lambda gradient: gradient * self.factor)
        return terms if self.gradient else terms * self.factor

    def discriminator_terms(self, **logits):
        return self.spoil("discriminator", super().discriminator_terms(**logits))

    def generator_terms(self, **logits):
        return self.spoil("generator", super().generator_terms(**logits))
