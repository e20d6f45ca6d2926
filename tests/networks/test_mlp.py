import copy

import pytest
import torch

from litgan.networks import MLPDiscriminator, MLPGenerator

SHAPES = [(2,), (1, 8, 8), (3, 16)]


def labels(count, classes):
    return torch.arange(count) % classes if classes else None


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_every_parameter_learns(shape, classes):
    generator = MLPGenerator(shape, classes, latent_dim=7, widths=(16, 12))
    discriminator = MLPDiscriminator(shape, classes, widths=(16, 12))
    fake = generator(torch.randn(9, 7), labels(9, classes))
    logits = discriminator(fake, labels(9, classes))
    assert generator.latent_dim == 7 and fake.shape == (9, *shape) and fake.abs().max() <= 1
    assert logits.shape == (9, 1)
    logits.square().sum().backward()
    for network in (generator, discriminator):
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        assert network.mixes_samples is False


def test_a_linear_output_is_unbounded():
    torch.manual_seed(0)
    latents = 10 * torch.randn(64, 8)
    bounded, unbounded = MLPGenerator((2,), latent_dim=8), MLPGenerator((2,), latent_dim=8, output="linear")
    unbounded.load_state_dict(bounded.state_dict())
    assert unbounded(latents).abs().max() > 2
    torch.testing.assert_close(bounded(latents), unbounded(latents).tanh())


def test_labels_change_what_a_conditional_network_says_and_nothing_else():
    latents, samples = torch.randn(5, 64), torch.randn(5, 2)
    zero, one = torch.zeros(5, dtype=torch.long), torch.ones(5, dtype=torch.long)
    for network, given in [(MLPGenerator((2,), 3), latents), (MLPDiscriminator((2,), 3), samples)]:
        assert not torch.allclose(network(given, zero), network(given, one))
    for network, given in [(MLPGenerator((2,)), latents), (MLPDiscriminator((2,)), samples)]:
        assert torch.equal(network(given, zero), network(given))


def test_the_projection_adds_the_inner_product_of_class_and_features():
    discriminator = MLPDiscriminator((2,), 3, widths=(16,))
    samples, classes = torch.randn(6, 2), labels(6, 3)
    features = discriminator.trunk(samples)
    added = (discriminator.head.embed.weight[classes] * features).sum(1, keepdim=True)
    torch.testing.assert_close(discriminator(samples, classes), discriminator.head.linear(features) + added)


def test_the_signal_keeps_its_size_at_any_width():
    torch.manual_seed(0)
    samples = torch.randn(256, 100)
    for width in (32, 512):
        features = MLPDiscriminator((100,), widths=[width] * 6, activation="relu").trunk(samples)
        assert 0.4 < features.square().mean() < 2.5


def test_spectral_norm_bounds_every_layer_and_survives_a_copy():
    discriminator = MLPDiscriminator((2,), 4, widths=(32, 32), spectral_norm=True)
    samples, classes = torch.randn(8, 2), labels(8, 4)
    for _ in range(50):
        discriminator(samples, classes)
    matrices = [m.weight for m in discriminator.modules() if hasattr(m, "parametrizations")]
    assert len(matrices) == 4  # two hidden layers, the logit and the class embedding
    for matrix in matrices:
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.02)
    twin = copy.deepcopy(discriminator).eval()
    torch.testing.assert_close(twin(samples, classes), discriminator.eval()(samples, classes))


@pytest.mark.parametrize("kind", [MLPGenerator, MLPDiscriminator])
def test_the_state_dict_goes_round(kind):
    first, second = kind((64,), 3), kind((64,), 3)
    given, classes = torch.randn(4, 64), labels(4, 3)
    assert not torch.allclose(first(given, classes), second(given, classes))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(given, classes), second(given, classes))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: MLPGenerator((2,), widths=(16, 0)), r"widths \[16, 0\]"),
        (lambda: MLPGenerator((2,), output="sigmoid"), "no output 'sigmoid'"),
        (lambda: MLPDiscriminator((2,), activation="gelu"), "no activation 'gelu'"),
        (lambda: MLPGenerator((2,), 3)(torch.randn(4, 64)), "pass labels"),
        (lambda: MLPDiscriminator((2,), 3)(torch.randn(4, 2), torch.zeros(4)), "int64"),
        (lambda: MLPDiscriminator((2,), 3)(torch.randn(4, 2), torch.zeros(3, dtype=torch.long)), "4 samples"),
        (lambda: MLPDiscriminator((2,))(torch.randn(4, 3)), "built for inputs"),
        (lambda: MLPGenerator((2,))(torch.randn(4, 3)), "built for inputs"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        build()
    assert "\n" not in str(refused.value)
