from collections import Counter

from rl.studies import StudySampler, stream_seed


def test_every_epoch_visits_every_study_once_in_a_new_order():
    sampler = StudySampler(10, seed=3)
    visits = [i for _ in range(10) for i in sampler.draw(4)]
    assert sampler.position == 40
    epochs = [visits[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_position_is_all_that_a_resumed_sampler_needs():
    first, second = StudySampler(7, seed=1), StudySampler(7, seed=1)
    first.draw(12)
    second.position = first.position
    assert first.draw(9) == second.draw(9)


def test_looking_ahead_does_not_move():
    sampler = StudySampler(5, seed=0)
    ahead = sampler.ahead(8)
    assert sampler.draw(8) == ahead
    assert sampler.ahead(8, start=0) == ahead


def test_a_batch_larger_than_the_data_repeats_studies_evenly():
    assert set(Counter(StudySampler(3, seed=0).draw(9)).values()) == {3}


def test_seeds_of_streams_and_calls_differ():
    seeds = {stream_seed(7, stream, number) for stream in ("rollout", "minibatches") for number in range(50)}
    assert len(seeds) == 100
    assert stream_seed(7, "rollout", 3) == stream_seed(7, "rollout", 3)
