"""Streams: functions of seed, step, sample and consumer; independent of each other and of how a batch is split."""

from __future__ import annotations

import pytest
import torch
from priorzoo.core.streams import Stream, Streams, derived_seed, fixed_streams
from torch import Tensor
from torch.testing import assert_close

BATCH = Streams(seed=3, step=7, indices=(0, 1, 2, 3))


@pytest.mark.parametrize("draw", ["normal", "uniform", "integers"])
def test_split_of_the_batch_does_not_matter(draw: str) -> None:
    def numbers(streams: Streams) -> Tensor:
        stream = streams("jitter")
        return stream.integers(1000, 5) if draw == "integers" else getattr(stream, draw)(5)

    together = numbers(BATCH)
    assert torch.equal(torch.cat([numbers(BATCH.take([0, 1])), numbers(BATCH.take([2, 3]))]), together)
    assert torch.equal(numbers(BATCH.take([3, 1])), together[[3, 1]])
    assert torch.equal(numbers(Streams(3, 7, (2,))), together[2:3])


def test_every_part_of_the_name_matters() -> None:
    base = BATCH("jitter").uniform(8)
    others = [
        Streams(4, 7, BATCH.indices)("jitter"), Streams(3, 8, BATCH.indices)("jitter"), BATCH("importance"),
        BATCH.within("priors")("jitter"), Streams(3, 7, (4, 5, 6, 7))("jitter"),
    ]  # fmt: skip
    for other in others:
        assert not bool((other.uniform(8) == base).any())


def test_calls_continue_the_sequence_and_streams_do_not_share_it() -> None:
    stream = BATCH("z")
    first, second = stream.normal(3), stream.normal(3)
    assert not bool((first == second).any())
    fresh = BATCH("z")
    BATCH("other").normal(100)
    assert torch.equal(fresh.normal(3), first)


def test_names_within_a_part_are_those_with_its_prefix() -> None:
    nested = BATCH.within("priors").within("skin")("points")
    assert torch.equal(nested.uniform(2), BATCH("priors/skin/points").uniform(2))


def test_laws() -> None:
    stream = Streams(0, 0, tuple(range(50)))("law")
    uniform, normal, integers = stream.uniform(400), stream.normal(400), stream.integers(7, 400)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01) and uniform.var().item() == pytest.approx(1 / 12, rel=0.05)
    assert normal.mean().item() == pytest.approx(0.0, abs=0.03) and normal.var().item() == pytest.approx(1.0, rel=0.05)
    assert set(integers.unique().tolist()) == set(range(7)) and integers.dtype == torch.int64
    # Samples of a batch are independent of each other.
    correlation = torch.corrcoef(normal)
    assert float((correlation - torch.eye(50)).abs().max()) < 0.3


def test_shared_coin_is_the_same_for_every_micro_batch() -> None:
    coins = {BATCH.take([i])("coin").shared_uniform() for i in range(4)}
    assert coins == {BATCH("coin").shared_uniform()}
    one = BATCH("coin")
    assert one.shared_uniform() != one.shared_uniform()
    mean = sum(Streams(0, step, (0,))("coin").shared_uniform() for step in range(400)) / 400
    assert mean == pytest.approx(0.5, abs=0.06)


def test_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = BATCH("z").normal(3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(BATCH("z").normal(3), first)


def test_sequences_do_not_change_between_versions() -> None:
    # A run resumed by another version of the program must draw the same numbers.
    assert derived_seed(0, 1, "jitter") == 2784154711845523654
    assert_close(Stream(0, 0, "z", (0,)).normal(2), torch.tensor([[-0.4643836, -0.2875410]]))
    assert_close(Stream(0, 0, "z", (0,)).uniform(2), torch.tensor([[0.8235296, 0.0811144]]))


def test_fixed_streams_number_samples_from_first() -> None:
    assert fixed_streams(5, 3, first=10).indices == (10, 11, 12)
    assert torch.equal(fixed_streams(5, 1, first=2)("z").normal(4), fixed_streams(5, 3)("z").normal(4)[2:])
