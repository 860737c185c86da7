import pytest
import torch

from catnet.config import ModelSettings
from catnet.episode import Episode
from catnet.model import kept
from catnet.model.catnet import CATNet
from catnet.model.kept import kept_tokens
from catnet.model.loss import Objective


@pytest.fixture
def everything(monkeypatch):
    """`everything()`: from here on all tokens are computed and masked, as on a GPU."""

    def on():
        for module in ("attention.masked", "mife"):
            monkeypatch.setattr(f"catnet.model.{module}.kept_tokens", lambda mask: None)

    return on


def test_kept_tokens_come_back_to_their_places(generator):
    tokens = torch.randn(3, 6, 4, generator=generator)
    mask = torch.tensor([[0, 1, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0], [0.0] * 6])
    some = kept_tokens(mask)
    assert some.place.shape == (3, 3)
    assert some.of(tokens)[0].equal(tokens[0, [1, 4, 5]])
    assert some.of(tokens)[1, 0].equal(tokens[1, 3])
    assert some.back(some.of(tokens), tokens=6).equal(tokens * mask[..., None])


def test_a_mask_that_keeps_nothing_gathers_one_token_that_does_not_count():
    some = kept_tokens(torch.zeros(2, 5))
    assert some.place.shape == (2, 1)
    assert not some.counts.any()


def test_no_count_is_read_back_from_another_device():
    assert kept_tokens(torch.zeros(2, 5, device="meta")) is None


def episode_of(generator, *, shots):
    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    support_mask, query_mask = torch.zeros(3, shots, 64, 64), torch.zeros(3, 64, 64)
    support_mask[0, :, 20:40, 30:50] = support_mask[1, -1, 8:13, 8:13] = 1  # the third has none
    query_mask[:, 10:50, 10:50] = 1
    return Episode(
        normal(3, shots, 1, 64, 64),
        support_mask.double(),
        normal(3, 1, 64, 64),
        query_mask.double(),
    )


def learnt(settings, episode):
    """Every mask, the loss and all gradients of one step, in float64."""
    torch.manual_seed(0)
    objective = Objective(CATNet(settings).double(), alignment=1.0, early=1.0)
    losses = objective(episode)
    losses.total.backward()
    gradients = [weight.grad for weight in objective.parameters()]
    return [*losses.prediction.logits, losses.total.detach(), *gradients]


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize(
    ("mask_on", "mask_how"),
    [("queries", "multiply"), ("keys", "bias"), ("keys", "multiply"), ("none", "multiply")],
)
def test_gathering_the_kept_tokens_equals_masking_all(
    everything, generator, mask_on, mask_how, shots
):
    """Attention and prior over what the masks keep, against all tokens computed and masked."""
    settings = ModelSettings(
        encoder="tu-test_resnet", dim=16, rounds=2, mask_on=mask_on, mask_how=mask_how
    )
    episode = episode_of(generator, shots=shots)
    gathered = learnt(settings, episode)
    everything()
    for got, plain in zip(gathered, learnt(settings, episode), strict=True):
        torch.testing.assert_close(got, plain, rtol=1e-5, atol=1e-7)  # the prior is float32


def test_the_kept_tokens_are_all_that_is_attended_from(monkeypatch, generator):
    """The gain: rows of the products, by a mask of 25 of 64 tokens."""
    attention = CATNet(ModelSettings(encoder="tu-test_resnet", dim=16, rounds=1)).cmat[0].cross
    sizes = []
    original = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, **more):
        sizes.append((query.shape[2], key.shape[2]))
        return original(query, key, value, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    x = torch.randn(1, 16, 8, 8, generator=generator)
    receive = torch.zeros(1, 8, 8)
    receive[:, :5, :5] = 1
    attention.attention(x, x, receive=receive)
    attention.attention(x, x, keep=receive, how="bias")
    assert sizes == [(25, 64), (64, 25)]
    assert kept.kept_tokens(receive.flatten(1)).place.shape == (1, 25)
