"""The projected discriminator: what is frozen, what is trained, and the inputs of the backbone."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from litgan.data import FashionMNIST
from litgan.networks import DCGANGenerator
from litgan.penalties import R1
from litgan.rebuild import Builder
from litgan.zoo import ProjectedDiscriminator
from litgan.zoo.projected import Backbone, build_backbone


def test_only_the_small_discriminators_are_trained_and_images_get_gradients():
    torch.manual_seed(0)
    network = ProjectedDiscriminator((1, 32, 32))
    trained = {name.split(".")[0] for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained == {"discriminators"}
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    samples = torch.randn(4, 1, 32, 32, requires_grad=True)
    network.train()
    network(samples).square().sum().backward()
    assert (samples.grad.flatten(1).norm(dim=1) > 0).all()
    assert not any(module.training for module in network.backbone.modules())
    assert all(torch.equal(before[name], value) for name, value in network.backbone.state_dict().items())


def test_the_backbone_keeps_the_statistics_it_came_with():
    """Neither construction nor a pass before the first call of `train` moves them."""
    network = ProjectedDiscriminator((3, 64, 64), backbone="torchvision:mobilenet_v3_small", pretrained=False)
    network(torch.randn(2, 3, 64, 64))
    counts = [value for name, value in network.backbone.named_buffers() if name.endswith("tracked")]
    assert counts and not any(counts)


def test_the_backbone_returns_the_last_maps_of_each_resolution():
    layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 5, 3, padding=1)]
    layers += [torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(5, 6, 3, padding=1)]
    maps = Backbone(layers)(torch.zeros(1, 1, 16, 16))
    assert [tuple(found.shape[1:]) for found in maps] == [(5, 8, 8), (6, 4, 4)]
    assert (maps[0] >= 0).all(), "after its last layer, which rectifies"


def test_the_backbone_gets_normalized_images():
    seen = []
    backbone = Backbone([torch.nn.Identity()], (0.5, 0.4, 0.3), (0.1, 0.2, 0.4))
    backbone.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    backbone(torch.full((1, 3, 2, 2), 1.0))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([5.0, 3.0, 1.75]))


def test_a_penalty_on_a_backbone_without_second_derivatives_is_refused(tiny_gan, make_trainer):
    discriminator = partial(
        ProjectedDiscriminator,
        backbone="torchvision:mobilenet_v3_small",
        pretrained=False,
        depths=1,
        widths=[8],
    )
    gan = tiny_gan(
        generator=partial(DCGANGenerator, latent_dim=4, widths=[8, 8, 8]), discriminator=discriminator,
        sample_shape=(1, 32, 32), penalties=[R1(1.0)],
    )  # fmt: skip
    batches = DataLoader([(torch.zeros(2, 1, 32, 32), None)], batch_size=None)
    with pytest.raises(ValueError, match=r"no derivative of aten::hard\w+_backward: .*FiniteDifferenceR1"):
        make_trainer(1).fit(gan, train_dataloaders=batches)


@pytest.mark.train
def test_it_learns_to_recognize_flipped_images():
    torch.manual_seed(0)
    try:
        data = FashionMNIST(resolution=32)
        real = next(iter(data.real_batches(256, batch_size=256)))[0]
    except (FileNotFoundError, RuntimeError, OSError) as error:
        pytest.skip(str(error))
    network = ProjectedDiscriminator((1, 32, 32))
    adam = torch.optim.Adam([w for w in network.parameters() if w.requires_grad], lr=2e-3)
    fake = real[torch.randperm(256)].flip(2)
    for _ in range(40):
        adam.zero_grad()
        loss = torch.nn.functional.softplus(-network(real[:128])).mean()
        (loss + torch.nn.functional.softplus(network(fake[:128])).mean()).backward()
        adam.step()
    network.eval()
    right = torch.cat([network(real[128:]).mean(1) > 0, network(fake[128:]).mean(1) < 0])
    assert right.float().mean() > 0.8  # fakes are upside down


def test_an_undownloadable_backbone_names_the_included_ones(monkeypatch):
    def unreachable(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(RuntimeError, match="take the backbone fashion or digits, which come with litgan"):
        build_backbone("torchvision:mobilenet_v3_small")


def test_a_backbone_comes_with_the_checkpoint():
    """Of a network of torchvision or timm nothing is fetched but its architecture."""
    arguments = {"backbone": "torchvision:mobilenet_v3_small", "pretrained": True, "size": 32}
    node = {"class_path": "litgan.zoo.ProjectedDiscriminator", "init_args": arguments}
    factory = Builder().value(Callable[[tuple, int], torch.nn.Module], node, "discriminator")
    assert factory.keywords["pretrained"] is False
    arguments["backbone"] = "torchvision:deeplabv3_resnet50"  # which would fetch a backbone of its own
    factory = Builder().value(Callable[[tuple, int], torch.nn.Module], node, "discriminator")
    with pytest.raises(ValueError, match="deeplabv3_resnet50"):
        factory((3, 32, 32), 0)
