import pytest
import torch
from torch import nn
from torch.nn import functional as F

from litgan.zoo.attention import SelfAttention, attention_index


def test_attention_starts_as_the_identity_and_then_uses_all_positions():
    torch.manual_seed(0)
    attention, maps = SelfAttention(16), torch.randn(2, 16, 8, 8)
    assert torch.equal(attention(maps), maps)
    nn.init.constant_(attention.gamma, 0.5)
    query, key, value = (
        attention.query(maps),
        *(F.max_pool2d(layer(maps), 2) for layer in (attention.key, attention.value)),
    )
    query, key, value = (part.flatten(2).mT for part in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, scale=1.0).mT.unflatten(2, (8, 8))
    torch.testing.assert_close(attention(maps), maps + 0.5 * attention.output(attended))
    other = maps.clone()
    other[:, :, 0, 0] += 9
    assert (attention(other) - attention(maps))[:, :, 1:, 1:].abs().amin(1).gt(0).all()


def test_attention_can_be_differentiated_twice():
    """As R1 and WGAN-GP do."""
    torch.manual_seed(0)
    attention, maps = SelfAttention(4).double(), torch.randn(1, 4, 4, 4, dtype=torch.double)
    nn.init.constant_(attention.gamma, 0.5)
    assert torch.autograd.gradgradcheck(attention, maps.requires_grad_(), atol=1e-4)


def test_attention_index_is_that_of_the_block_with_this_resolution():
    owner = nn.Identity()
    assert attention_index(0, [8, 16], owner) is None
    assert attention_index(16, [8, 16], owner) == 1
    with pytest.raises(ValueError, match=r"Identity has no maps of side 32 .* one of \[8, 16\]"):
        attention_index(32, [8, 16], owner)
