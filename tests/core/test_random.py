import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halebrain.core.random import branch, derive_seed, draw_seeds, make_generator

parts = st.lists(st.one_of(st.integers(), st.text(max_size=5), st.binary(max_size=5)), max_size=4)


@pytest.mark.slow
@given(parts)
def test_a_seed_fits_63_bits_and_repeats(names):
    assert derive_seed(*names) == derive_seed(*names)
    assert 0 <= derive_seed(*names) < 2**63


def test_every_part_and_its_place_matter():
    seeds = [derive_seed(0, "a"), derive_seed("a", 0), derive_seed(1, "a"), derive_seed(0, "b"), derive_seed("0a")]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


def test_generators_of_other_streams_are_independent():
    a = torch.rand(20000, generator=make_generator(0, "train"))
    b = torch.rand(20000, generator=make_generator(0, "val"))
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.03


def test_nothing_touches_the_global_generator():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    draw_seeds(10, make_generator(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_first_seeds_do_not_depend_on_how_many_follow():
    assert torch.equal(draw_seeds(3, make_generator(4)), draw_seeds(9, make_generator(4))[:3])


def test_a_branch_draws_nothing_from_its_trunk_and_does_not_see_what_was_drawn():
    used, fresh = make_generator(3), make_generator(3)
    torch.rand(7, generator=used)
    state = used.get_state()
    first = torch.rand(5, generator=branch(used, "noise"))
    assert torch.equal(used.get_state(), state)
    assert torch.equal(first, torch.rand(5, generator=branch(fresh, "noise")))
    others = [branch(fresh, "affine"), branch(make_generator(4), "noise"), fresh]
    assert not any(torch.equal(first, torch.rand(5, generator=other)) for other in others)
