"""The generator: its shapes, its prior and its batch normalisation."""

import pytest
import torch

from ddgm.energy import Noise
from ddgm.generator import BatchNorm, build_generator, fix_statistics, prior

DENSE = {
    "kind": "dense", "latent": 4, "hidden": [16, 8], "activation": "relu", "output": "none", "noise": 0.0,
    "shift": 0.0, "statistics": "batch", "start": None,
}  # fmt: skip
LAB = {
    **DENSE,
    "kind": "convolutional",
    "latent": 100,
    "hidden": [1024, 512, 256, 128],
    "output": "tanh",
    "start": 0.01,
}


NORMALISED = [({**DENSE, "output": "batch_norm"}, (2,)), ({**LAB, "output": "batch_norm"}, (3, 64, 64))]


@pytest.mark.parametrize(("row", "shape"), [(DENSE, (2,)), (DENSE, (1, 8, 8)), (LAB, (3, 64, 64)), *NORMALISED])
def test_samples_have_the_datas_shape(row, shape):
    generator = build_generator(row, shape)
    assert generator(torch.randn(3, row["latent"])).shape == (3, *shape)


def test_the_labs_convolutional_nets_have_the_papers_layers():
    layers = [m for m in build_generator(LAB, (3, 64, 64)).modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in layers] == [
        (1024, 512, (5, 5)), (512, 256, (5, 5)), (256, 128, (5, 5)), (128, 3, (5, 5)),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 3), (16, 3, 4, 4)])
def test_batch_norm_gives_each_channel_its_scale_and_shift(shape):
    torch.manual_seed(0)
    norm = BatchNorm(3, shift=0.1).double()
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([0.5, 1.0, 2.0]))
    out = norm(torch.randn(shape).double() * 7 + 3).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out.mean(1), torch.full((3,), 0.1).double())
    torch.testing.assert_close(out.std(1, correction=0), norm.scale.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("row", "shape"), NORMALISED)
def test_normalised_outputs_have_the_scale_and_shift_of_their_batch_norm_and_no_bias_beside_it(row, shape):
    torch.manual_seed(0)
    generator = build_generator(row, shape)
    assert not [name for name, _ in generator.named_parameters() if name.endswith(".bias")]
    x = generator(prior(8, row["latent"], torch.Generator().manual_seed(1))).detach().transpose(0, 1).flatten(1)
    torch.testing.assert_close(x.mean(1), torch.full((shape[0],), row["shift"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(1, correction=0), torch.ones(shape[0]), atol=1e-3, rtol=0)


def test_batch_norm_is_the_same_when_sampling_as_when_training():
    torch.manual_seed(0)
    generator, z = build_generator(DENSE, (2,)), torch.randn(8, 4)
    assert torch.equal(generator.train()(z), generator.eval()(z))


def test_the_prior_is_uniform_on_minus_one_to_one_and_repeats_with_its_stream():
    z = prior(20000, 3, torch.Generator().manual_seed(1))
    assert z.abs().max() <= 1
    assert z.mean().abs() < 0.01
    assert z.var().item() == pytest.approx(1 / 3, abs=0.01)
    assert torch.equal(z[:5], prior(5, 3, torch.Generator().manual_seed(1))[:5])


def test_noise_is_added_while_training_and_not_when_evaluating():
    noise, a = Noise(0.5), torch.zeros(1000, 3)
    assert noise.train()(a).std() == pytest.approx(0.5, rel=0.1) and torch.equal(noise.eval()(a), a)


def test_weights_start_with_the_rows_sd_no_bias_and_the_rows_shift():
    generator = build_generator({**LAB, "hidden": [32, 16, 8, 4], "shift": 0.1}, (3, 64, 64))
    layers = [layer for layer in generator.modules() if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert layers and all(layer.weight.std().item() == pytest.approx(0.01, rel=0.2) for layer in layers)
    assert (layers[-1].bias == 0).all()
    shifts = [layer.shift for layer in generator.modules() if isinstance(layer, BatchNorm)]
    assert len(shifts) == 4 and all((shift == 0.1).all() for shift in shifts)


def test_with_fixed_statistics_a_sample_does_not_depend_on_the_others():
    torch.manual_seed(0)
    row = {**DENSE, "latent": 4, "hidden": [16, 8], "statistics": "fixed"}
    generator = build_generator(row, (2,))
    with torch.no_grad():
        for weight in generator.parameters():
            weight += 0.3 * torch.randn_like(weight)
    fix_statistics(generator, 64, torch.Generator().manual_seed(0))
    z = prior(64, 4, torch.Generator().manual_seed(1))
    by_batch = generator(z)
    generator.eval()
    torch.testing.assert_close(generator(z[:1]), generator(z)[:1])
    # A batch's own statistics scatter about the fixed ones.
    assert (generator(z) - by_batch).abs().mean() < 0.2 * by_batch.std()
    assert not torch.allclose(generator(z), by_batch)


def test_fixed_statistics_are_the_priors_moments():
    """Of one layer, exactly: z ~ U(-1, 1) has mean 0 and variance 1/3."""
    row = {**DENSE, "latent": 3, "hidden": [3], "statistics": "fixed"}
    generator = build_generator(row, (2,))
    with torch.no_grad():
        next(generator.parameters()).copy_(torch.diag(torch.tensor([1.0, 2.0, 3.0])))
    fix_statistics(generator, 1000, torch.Generator().manual_seed(0))
    layer = next(layer for layer in generator.modules() if isinstance(layer, BatchNorm))
    torch.testing.assert_close(layer.mean, torch.zeros(3), rtol=0, atol=0.03)
    torch.testing.assert_close(layer.variance, torch.tensor([1.0, 4.0, 9.0]) / 3, rtol=0.02, atol=0)
