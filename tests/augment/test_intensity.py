import pytest
import torch

from catnet.augment.intensity import adjust_gamma


def slowly(image, gamma):
    low, high = image.min().item(), image.max().item()
    out = torch.empty_like(image)
    for place, value in enumerate(image.flatten().tolist()):
        out.view(-1)[place] = low + (high - low) * ((value - low) / (high - low)) ** gamma
    return out


def test_every_slice_equals_the_formula_written_slowly(generator):
    images = torch.randn(3, 2, 7, 5, generator=generator) * 3 + 1
    gamma = torch.tensor([0.5, 1.2, 1.5])
    got = adjust_gamma(images, gamma)
    for episode in range(3):
        for shot in range(2):
            expected = slowly(images[episode, shot], gamma[episode].item())
            torch.testing.assert_close(got[episode, shot], expected, rtol=1e-4, atol=1e-5)


def test_minimum_and_maximum_stay_and_the_order_of_greys_too(generator):
    images = torch.randn(1, 2, 8, 8, generator=generator)
    got = adjust_gamma(images, torch.tensor([0.6]))
    torch.testing.assert_close(got.amin(dim=(-2, -1)), images.amin(dim=(-2, -1)))
    torch.testing.assert_close(got.amax(dim=(-2, -1)), images.amax(dim=(-2, -1)))
    for shot in range(2):
        order = images[0, shot].flatten().argsort()
        assert (got[0, shot].flatten()[order].diff() >= 0).all()


@pytest.mark.parametrize(("gamma", "brighter"), [(0.5, True), (1.5, False)])
def test_an_exponent_below_one_brightens(gamma, brighter, generator):
    images = torch.randn(1, 1, 8, 8, generator=generator)
    assert (adjust_gamma(images, torch.tensor([gamma])).mean() > images.mean()) == brighter


def test_an_exponent_of_one_changes_no_bit_of_its_own_episode_only(generator):
    images = torch.randn(2, 1, 8, 8, generator=generator)
    got = adjust_gamma(images, torch.tensor([1.0, 1.3]))
    assert torch.equal(got[0], images[0])
    assert not torch.allclose(got[1], images[1])


@pytest.mark.parametrize("level", [-3.7, 0.0, 2.0e6])
@pytest.mark.parametrize("gamma", [0.5, 1.5])
def test_a_constant_slice_changes_no_bit(level, gamma):
    images = torch.full((1, 1, 4, 4), level)
    assert torch.equal(adjust_gamma(images, torch.tensor([gamma])), images)
