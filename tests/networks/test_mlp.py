import torch

from litgan.networks import MLPDiscriminator, MLPGenerator


def test_a_linear_output_is_unbounded():
    torch.manual_seed(0)
    latents = 10 * torch.randn(64, 8)
    bounded, unbounded = MLPGenerator((2,), latent_dim=8), MLPGenerator((2,), latent_dim=8, output="linear")
    unbounded.load_state_dict(bounded.state_dict())
    assert unbounded(latents).abs().max() > 2
    torch.testing.assert_close(bounded(latents), unbounded(latents).tanh())


def test_the_projection_adds_the_inner_product_of_class_and_features():
    discriminator = MLPDiscriminator((2,), 3, widths=(16,))
    samples, classes = torch.randn(6, 2), torch.arange(6) % 3
    features = discriminator.backbone(samples)
    added = (discriminator.head.embed.weight[classes] * features).sum(1, keepdim=True)
    torch.testing.assert_close(discriminator(samples, classes), discriminator.head.linear(features) + added)


def test_the_signal_keeps_its_size_at_any_width():
    torch.manual_seed(0)
    samples = torch.randn(256, 100)
    for width in (32, 512):
        features = MLPDiscriminator((100,), widths=[width] * 6, activation="relu").backbone(samples)
        assert 0.4 < features.square().mean() < 2.5
