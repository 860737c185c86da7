import contextlib
import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
import torchvision
from einops import repeat
from safetensors.torch import save_file
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.encoder import LOUDEST, Encoded, Encoder
from catnet.model.ops import for_queries

close = {"rtol": 1e-4, "atol": 1e-4}  # filters are summed, and kept, in float32


def make(name="tu-resnet18", *, weights="none", output_stride=8, dim=16):
    return Encoder(name=name, weights=weights, output_stride=output_stride, dim=dim).eval()


def color_network(name, *, output_stride):
    """A network of torchvision with random weights and statistics, for color images."""
    dilate = [False, output_stride == 8, True] if name == "resnet50" else None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(torchvision.models, name)(replace_stride_with_dilation=dilate).eval()
    generator = torch.Generator().manual_seed(0)
    for key, value in network.state_dict().items():
        if re.search(r"bn\d|downsample\.1", key) and value.is_floating_point():
            value.copy_(torch.empty_like(value).uniform_(0.5, 1.5, generator=generator))
    return network.double()


@torch.no_grad()
def stages(network, images):
    """The outputs of the four stages of a torchvision network."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    outputs = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        outputs.append(x)
    return outputs


@pytest.fixture(scope="module")
def resnet18():
    return color_network("resnet18", output_stride=32)


@pytest.fixture
def weight_file(resnet18, tmp_path):
    """`weight_file(kind)` writes the weights of torchvision's ResNet-18 and gives the path."""

    def write(kind):
        state = copy.deepcopy(resnet18).float().state_dict()
        if kind == "before 2018":
            state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        if kind == "nested":
            state = {"state_dict": state, "epoch": 3}
        path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
        (save_file if kind == "safetensors" else torch.save)(state, path)
        return str(path)

    return write


@pytest.mark.parametrize(("output_stride", "size"), [(8, (8, 12)), (16, (4, 6))])
def test_resnet50_reduces_stages_2_and_3_and_keeps_stage_4_for_the_prior(output_stride, size):
    encoder = make("tu-resnet50", output_stride=output_stride, dim=32)
    assert encoder.reduce.weight.shape == (32, 512 + 1024, 1, 1)
    encoded = encoder(torch.zeros(2, 1, 64, 96))
    assert encoded.feature.shape == (2, 32, *size)
    assert encoded.deep.shape == (2, 2048, *size)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_resnet50_equals_torchvisions_dilated_network_on_grey_images(
    output_stride, tmp_path, generator
):
    reference = color_network("resnet50", output_stride=output_stride)
    path = tmp_path / "resnet50.pth"
    torch.save(reference.state_dict(), path)
    encoder = make("tu-resnet50", weights=str(path), output_stride=output_stride).double()
    images = torch.randn(1, 1, 64, 96, generator=generator, dtype=torch.float64)
    lead = output_stride // 2
    led_in = F.pad(images, (lead, 0, lead, 0), mode="replicate")
    *_, second, third, deep = stages(reference, repeat(led_in, "b 1 h w -> b c h w", c=3))
    if output_stride == 16:
        second = F.avg_pool2d(second, 3, stride=2, padding=1, count_include_pad=False)
    with torch.no_grad():
        encoded = encoder(images)
        joined = torch.cat([second, third], dim=1)[..., 1:, 1:]
        torch.testing.assert_close(encoded.feature, encoder.reduce(joined), **close)
    torch.testing.assert_close(encoded.deep, deep[..., 1:, 1:], **close)


@pytest.mark.parametrize("kind", ["plain", "nested", "before 2018", "safetensors"])
@pytest.mark.parametrize("name", ["tu-resnet18", "resnet18"])
def test_color_weights_see_a_grey_image_as_they_would_in_color(
    kind, name, weight_file, resnet18, generator
):
    images = torch.randn(2, 1, 64, 96, generator=generator, dtype=torch.float64)
    expected = stages(resnet18, repeat(images, "b 1 h w -> b c h w", c=3))
    with torch.no_grad():
        got = make(name, weights=weight_file(kind)).double().backbone(images)
    torch.testing.assert_close(got[2], expected[0], **close)
    torch.testing.assert_close(got[3], expected[1], **close)


@pytest.mark.parametrize("name", ["tu-resnet34", "tu-resnet50"])
def test_weights_of_another_architecture_are_refused(name, weight_file):
    path = weight_file("plain")
    with pytest.raises(UserError, match=re.escape(f"{path}: not the weights of this encoder")):
        make(name, weights=path)


def test_a_weight_too_many_is_refused_by_name(resnet18, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({**resnet18.state_dict(), "stranger": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"first difference: (model\.)?stranger"):
        make(weights=str(path))


class Trap:
    """What a hostile file does when pickle reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, 2))])
def test_a_pickled_object_is_refused_and_none_of_its_code_is_run(save, tmp_path):
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    save({"conv1.weight": Trap(sprung)}, path)
    with pytest.raises(UserError, match=re.escape(f"{path}: damaged, or holds more than tensors")):
        make(weights=str(path))
    assert not sprung.exists()
    with contextlib.suppress(RuntimeError):  # it says that this is no weight file, too late
        torch.load(path, weights_only=False)
    assert sprung.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing"])
def test_a_damaged_weight_file_is_named_in_one_sentence(suffix, damage, weight_file, tmp_path):
    whole = Path(weight_file("safetensors" if suffix == ".safetensors" else "plain")).read_bytes()
    path = tmp_path / f"damaged{suffix}"
    if damage != "missing":
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"]u"}[damage])
    with pytest.raises(UserError) as caught:
        make(weights=str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": None}, {3: torch.ones(2)}])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="not the weights of this encoder"):
        make(weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [("tu-resnet18", "'imagnet' is unknown for tu-resnet18"), ("resnet18", "Wrong .*`imagnet`")],
)
def test_a_misspelt_weight_name_is_refused_before_anything_is_downloaded(name, problem):
    with pytest.raises(UserError, match=problem):
        make(name, weights="imagnet")


@pytest.mark.parametrize("name", ["resnet999", "tu-resnet999", "densenet121", "tu-vgg11", "tu-"])
def test_an_encoder_that_cannot_be_had_is_refused_in_one_sentence(name):
    with pytest.raises(UserError) as caught:
        make(name)
    assert re.match(rf"model.encoder '{name}' .*cannot be built \([^)]+", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(64, 60), (50, 64), (16, 16)])
def test_slices_must_be_multiples_of_32(size):
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]}.*multiples of 32"):
        make()(torch.zeros(1, 1, *size))


def test_encoded_slices_can_be_chosen():
    feature, deep = torch.arange(6.0).reshape(3, 2, 1, 1), torch.arange(3.0).reshape(3, 1, 1, 1)
    encoded = Encoded(feature, deep)
    assert torch.equal(encoded[1:].feature, feature[1:])
    assert torch.equal(encoded[1:].deep, deep[1:])


@pytest.mark.parametrize(("counts", "rows"), [([2, 0, 1], [0, 0, 2]), (None, [0, 1, 2])])
def test_supports_stand_as_often_as_they_count(counts, rows):
    feature = torch.arange(6.0).reshape(3, 2, 1, 1)
    assert torch.equal(for_queries(feature, counts), feature[rows])


def test_a_support_alone_is_repeated_without_a_copy():
    feature = torch.arange(6.0).reshape(3, 2, 1, 1)[1:2]
    repeated = for_queries(feature, [4])
    assert torch.equal(repeated, feature[[0] * 4])
    assert repeated.data_ptr() == feature.data_ptr()


@pytest.mark.parametrize("stride", [8, 16])
def test_a_token_looks_at_the_middle_of_its_pixels(stride):
    """The mask of a token covers its pixels evenly; its feature must be about the same place."""
    torch.manual_seed(0)
    encoder = Encoder(name="tu-resnet18", weights="none", output_stride=stride, dim=32).eval()
    image = torch.randn(1, 1, 256, 256, requires_grad=True)
    middle = 128 // stride
    for maps in (encoder(image).feature, encoder(image).deep):
        (slope,) = torch.autograd.grad(maps[..., middle, middle].square().sum(), image)
        weight = slope[0, 0].square()
        place = torch.arange(256.0)
        center = middle * stride + (stride - 1) / 2
        for axis in (0, 1):
            looked_at = (weight.sum(dim=1 - axis) * place).sum() / weight.sum()
            assert abs(looked_at - center) < 2.0


def test_a_fixed_stage_leaves_every_other_gradient_as_it_is():
    trained, fixed = (
        Encoder(name="tu-resnet18", weights="none", output_stride=16, dim=8) for _ in range(2)
    )
    fixed.load_state_dict(trained.state_dict())
    fixed.fix_deep()
    assert fixed.training
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for encoder in (trained, fixed):
        encoded = encoder(images)
        assert encoded.deep.requires_grad == (encoder is trained)
        encoded.feature.square().sum().backward()
    pairs = dict(fixed.named_parameters())
    left = {name for name, weight in pairs.items() if not weight.requires_grad}
    assert left == {name for name in pairs if "layer4" in name}
    for name, weight in trained.named_parameters():
        assert (weight.grad is None) == (name in left)
        if name not in left:
            torch.testing.assert_close(pairs[name].grad, weight.grad, rtol=0, atol=0)


@pytest.mark.parametrize("batch_norm", ["trained", "frozen"])
def test_weights_that_nothing_uses_are_fixed_and_nothing_else_changes(batch_norm):
    encoder = Encoder(name="efficientnet-b0", weights="none", output_stride=8, dim=8)
    if batch_norm == "frozen":
        encoder.freeze_statistics()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    drawn = torch.get_rng_state()
    encoder.fix_unused((64, 96))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [module.training for module in encoder.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    fixed = {name for name, weight in encoder.named_parameters() if not weight.requires_grad}
    assert fixed == {
        f"backbone.{name}" for name in ("_conv_head.weight", "_bn1.weight", "_bn1.bias")
    }
    encoded = encoder(torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    (encoded.feature.square().sum() + encoded.deep.square().sum()).backward()
    without = {name for name, weight in encoder.named_parameters() if weight.grad is None}
    assert without == fixed


def test_of_an_encoder_that_uses_all_its_weights_none_is_fixed():
    encoder = Encoder(name="tu-resnet18", weights="none", output_stride=16, dim=8)
    encoder.fix_unused((64, 64))
    assert all(weight.requires_grad for weight in encoder.parameters())
    encoder.fix_deep()
    fixed = [weight.requires_grad for weight in encoder.parameters()]
    encoder.fix_unused((64, 64))
    assert [weight.requires_grad for weight in encoder.parameters()] == fixed


def test_no_grey_level_makes_the_statistics_infinite():
    encoder = Encoder(name="tu-resnet18", weights="none", output_stride=16, dim=8)
    loud = torch.randn(2, 1, 64, 64) * 1e18
    encoder(loud)
    assert all(value.isfinite().all() for value in encoder.state_dict().values())
    same = encoder.eval()(loud.clamp(-LOUDEST, LOUDEST))
    torch.testing.assert_close(encoder(loud).deep, same.deep, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_is_not_hidden(value):
    encoder = Encoder(name="tu-resnet18", weights="none", output_stride=16, dim=8).eval()
    images = torch.randn(1, 1, 64, 64)
    images[..., 30, 30] = value
    assert encoder(images).feature.isnan().any()
