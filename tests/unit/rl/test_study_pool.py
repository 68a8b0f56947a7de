from collections import Counter

from rl.study_pool import StudySampler, stream_seed


def test_every_epoch_visits_every_study_once_in_a_new_order():
    sampler = StudySampler(10, per_iteration=4, seed=3)
    visits = [study for iteration in range(10) for study in sampler.batch(iteration)]
    epochs = [visits[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert sampler.plan(10) == visits


def test_a_batch_larger_than_the_data_repeats_studies_evenly():
    assert set(Counter(StudySampler(3, per_iteration=9, seed=0).batch(2)).values()) == {3}


def test_seeds_of_streams_and_calls_differ():
    seeds = {
        stream_seed(7, stream, number)
        for stream in ("rollout", "minibatches")
        for number in range(50)
    }
    assert len(seeds) == 100
    assert stream_seed(7, "rollout", 3) == stream_seed(7, "rollout", 3)


def test_heavier_studies_are_visited_oftener_and_a_resumed_run_visits_the_same():
    weights = [3.0] * 20 + [1.0] * 80
    sampler = StudySampler(100, per_iteration=50, seed=3, weights=weights)
    visits = [study for iteration in range(100) for study in sampler.batch(iteration)]
    heavy = sum(study < 20 for study in visits) / len(visits)
    assert abs(heavy - 60 / 140) < 0.03
    assert sampler.plan(100) == visits
    again = StudySampler(100, per_iteration=50, seed=3, weights=weights)
    assert again.batch(7) == sampler.batch(7)
