import numpy as np
import pytest
import torch
from scipy import ndimage

from catnet.augment.recipe import SUPPORT, Params, node_spacing
from catnet.augment.spatial import smooth, warp

AFFINE = ("rotation", "right", "down", "shear", "scale")
STILL = {"rotation": 0.0, "right": 0.0, "down": 0.0, "shear": 0.0, "scale": 1.0, "alpha": 0.0}


def params(*, height, width, sigma=3.0, spacing=1, seed=0, **changes):
    """One episode's draw that changes only what is named; noise at every pixel."""
    value = STILL | changes
    alpha = value.pop("alpha")
    value = {name: torch.tensor([number]) for name, number in value.items()}
    nodes = (1, 2, -(-height // spacing), -(-width // spacing))
    noise = np.random.default_rng(seed).random(nodes, dtype=np.float32)
    return Params(
        side=(SUPPORT,),
        gamma=torch.ones(1),
        rotation=value["rotation"],
        shift=torch.stack([value["right"], value["down"]], dim=1),
        shear=value["shear"],
        scale=value["scale"],
        noise=torch.from_numpy(2 * noise - 1),
        alpha=alpha,
        sigma=sigma,
        spacing=spacing,
    )


def disc(height, width, *, row, column, radius, softness=0.7):
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - row, columns - column)
    image = 1 / (1 + np.exp((distance - radius) / softness))
    return torch.from_numpy(image).float()[None, None]


def center_of(image):
    return ndimage.center_of_mass(image[0, 0].numpy())


def elastic(drawn):
    """The elastic part alone, over as many pixels as there are nodes: (b, 2, h, w)."""
    height, width = drawn.noise.shape[-2:]
    return drawn.alpha * smooth(drawn.noise, drawn, height=height, width=width)


def moved(image, **changes):
    drawn = params(height=image.shape[-2], width=image.shape[-1], **changes)
    return warp(image, (image > 0.5).float(), by=drawn)


@pytest.mark.parametrize(("right", "down"), [(3.0, 0.0), (0.0, -5.0), (-4.0, 2.0)])
def test_a_shift_by_whole_pixels_moves_right_and_down(right, down, generator):
    image = torch.rand(1, 2, 21, 34, generator=generator)
    mask = (image > 0.5).float()
    drawn = params(height=21, width=34, right=right, down=down)
    got_image, got_mask = warp(image, mask, by=drawn)
    shifts = (int(down), int(right))
    kept = tuple(
        slice(max(step, 0), size + min(step, 0))
        for step, size in zip(shifts, (21, 34), strict=True)
    )
    expected = image.roll(shifts, dims=(-2, -1))[..., kept[0], kept[1]]
    torch.testing.assert_close(got_image[..., kept[0], kept[1]], expected, rtol=0, atol=1e-4)
    expected = mask.roll(shifts, dims=(-2, -1))[..., kept[0], kept[1]]
    assert torch.equal(got_mask[..., kept[0], kept[1]], expected)


def test_beyond_the_border_lies_the_minimum_of_each_slice_and_no_mask(generator):
    image = torch.rand(1, 2, 16, 16, generator=generator) + torch.tensor([-4.0, 7.0])[:, None, None]
    drawn = params(height=16, width=16, right=5.0)
    got_image, got_mask = warp(image, torch.ones_like(image), by=drawn)
    floor = image.amin(dim=(-2, -1))[..., None, None].expand(1, 2, 16, 5)
    torch.testing.assert_close(got_image[..., :5], floor)
    assert (got_mask[..., :5] == 0).all()
    assert (got_mask[..., 5:] == 1).all()


def test_a_positive_rotation_turns_counterclockwise():
    right_of_center = disc(65, 65, row=32, column=52, radius=5)
    image, _ = moved(right_of_center, rotation=90.0)
    assert center_of(image) == pytest.approx((12, 32), abs=0.05)


def test_a_positive_shear_slides_what_lies_below_to_the_right():
    below_center = disc(65, 65, row=44, column=32, radius=5)
    image, _ = moved(below_center, shear=45.0)
    assert center_of(image) == pytest.approx((44, 44), abs=0.05)


def test_a_scale_above_one_enlarges_about_the_center():
    image, mask = moved(disc(65, 65, row=42, column=26, radius=9), scale=1.2)
    assert center_of(image) == pytest.approx((32 + 12, 32 - 7.2), abs=0.05)
    assert mask.sum() == pytest.approx(np.pi * (9 * 1.2) ** 2, rel=0.05)


def matrices(*, rotation, right, down, shear, scale):
    """Forward map of (column, row, 1) from the center, as a product of textbook matrices."""
    turn = np.deg2rad(rotation)
    move = np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])
    rotate = np.array(
        [[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    slant = np.array([[1, np.tan(np.deg2rad(shear)), 0], [0, 1, 0], [0, 0, 1]])
    return move @ rotate @ slant @ np.diag([scale, scale, 1])


@pytest.mark.parametrize("seed", range(4))
def test_the_warp_equals_its_equation_written_slowly(seed):
    height, width, sigma, alpha = 40, 52, 3.0, 30.0
    rng = np.random.default_rng(seed)
    low, high = [-30, -5, -5, -20, 0.8], [30, 5, 5, 20, 1.3]
    affine = dict(zip(AFFINE, rng.uniform(low, high).tolist(), strict=True))
    drawn = params(height=height, width=width, sigma=sigma, alpha=alpha, seed=seed, **affine)
    image = torch.from_numpy(ndimage.gaussian_filter(rng.normal(size=(height, width)), 1)).float()

    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    right, down = (
        alpha * ndimage.gaussian_filter(noise, sigma, mode="constant", truncate=9)
        for noise in drawn.noise[0].double().numpy()
    )
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    places = np.stack([columns + right - center[0], rows + down - center[1], np.ones_like(right)])
    source = np.einsum("ij,jhw->ihw", np.linalg.inv(matrices(**affine)), places)
    expected = ndimage.map_coordinates(
        image.double().numpy(),
        [source[1] + center[1], source[0] + center[0]],
        order=1,
        mode="grid-constant",
        cval=image.min().item(),
    )
    got, _ = warp(image[None, None], image[None, None], by=drawn)
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "sigma"), [(48, 64, 0.4), (48, 64, 4.0), (30, 20, 6.0)]
)
def test_elastic_equals_the_filter_of_scipy(height, width, sigma):
    drawn = params(height=height, width=width, sigma=sigma, alpha=10.0)
    got = elastic(drawn)[0].numpy()
    for direction in range(2):
        noise = drawn.noise[0, direction].numpy()
        expected = 10 * ndimage.gaussian_filter(noise, sigma, mode="constant")
        np.testing.assert_allclose(got[direction], expected, atol=2e-3)


def test_elastic_moves_as_far_as_the_usual_recipe_does():
    drawn = params(height=256, width=256, alpha=10.0, sigma=5.0)
    got = elastic(drawn).std().item()
    rng = np.random.default_rng(1)
    usual = [
        10 * ndimage.gaussian_filter(rng.uniform(-1, 1, (256, 256)), 5.0, mode="constant")
        for _ in range(6)
    ]
    assert got == pytest.approx(np.std(usual), rel=0.06)
    # White noise of variance 1/3, shrunk by the energy of a two-dimensional Gaussian.
    assert got == pytest.approx(10 * 3**-0.5 / (2 * 5 * np.pi**0.5), rel=0.06)


def fields_of(*, spacing, count=120, size=72, sigma=5.0):
    """The middle of many elastic fields, away from the border: (count, h, w)."""
    drawn = [
        params(height=size, width=size, sigma=sigma, spacing=spacing, seed=seed)
        for seed in range(count)
    ]
    fields = [smooth(each.noise, each, height=size, width=size)[0, 0] for each in drawn]
    return torch.stack(fields)[:, 20:-20, 20:-20].double()


def test_noise_on_a_lattice_gives_fields_of_the_same_statistics():
    """Variance, covariance by distance and tails are those of noise at every pixel."""
    assert node_spacing(5.0) == 4
    every, few = fields_of(spacing=1), fields_of(spacing=node_spacing(5.0))
    theory = 3**-0.5 / (2 * 5 * np.pi**0.5)
    for fields in (every, few):
        assert fields.std().item() == pytest.approx(theory, rel=0.04)
        for distance in (2, 5, 8):
            product = (fields[..., distance:] * fields[..., :-distance]).mean() / theory**2
            assert product.item() == pytest.approx(np.exp(-(distance**2) / 100), abs=0.06)
    assert (few**4).mean() / few.var() ** 2 == pytest.approx(3, abs=0.25)
    # The lattice shows nowhere: no pixel of a cell moves more than another.
    by_phase = torch.stack(
        [few[:, row::4, column::4].std() for row in range(4) for column in range(4)]
    )
    assert by_phase.max() / by_phase.min() < 1.1


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_a_narrow_gaussian_keeps_noise_at_every_pixel(sigma):
    assert node_spacing(sigma) == 1


@pytest.mark.parametrize("size", [(64, 64), (96, 70)])
def test_no_displacement_changes_no_bit(size, generator):
    image = torch.randn(1, 2, *size, generator=generator)
    still = params(height=size[0], width=size[1])
    got_image, got_mask = warp(image, (image > 0).float(), by=still)
    assert torch.equal(got_image, image)
    assert torch.equal(got_mask, (image > 0).float())


@pytest.mark.parametrize("seed", range(5))
def test_image_and_mask_move_together(seed):
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[:256, :256]
    inside = ((rows - 110) / 60) ** 2 + ((columns - 140) / 45) ** 2 < 1
    image = torch.from_numpy(inside).float()[None, None]
    low, high = [-5, -5, -5, -5, 0.9], [5, 5, 5, 5, 1.2]
    affine = dict(zip(AFFINE, rng.uniform(low, high).tolist(), strict=True))
    drawn = params(height=256, width=256, sigma=5.0, alpha=10.0, seed=seed, **affine)
    got_image, got_mask = warp(image, image, by=drawn)
    assert set(got_mask.unique().tolist()) == {0.0, 1.0}
    thresholded = (got_image > 0.5).float()
    dice = 2 * (thresholded * got_mask).sum() / (thresholded.sum() + got_mask.sum())
    assert dice > 0.99
    unmoved = 2 * (image * got_mask).sum() / (image.sum() + got_mask.sum())
    assert unmoved < 0.985
