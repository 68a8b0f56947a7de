import json
from pathlib import Path

import pytest

from lmrrg.config.loading import load_config
from lmrrg.ppo.errors import PPOError
from rl.storage.training_states import StateStore, TrainerState, read_state, write_state
from rl.validation import HeldOut

ORIGIN = {"sft": "a", "data": "b"}
STATE = TrainerState(
    iterations_done=4,
    version=2,
    controller={"controller": "reward", "weight": 0.07},
    reference_rewards=[(3, -0.5), (1, None)],
    start=HeldOut(0.3, -0.4, 0.4, 0.8, 0.01),
    best=HeldOut(0.4, -0.2, 0.2, 0.9, 0.02),
)


def store(folder: Path, *overrides: str, origin: dict[str, str] | None = None) -> StateStore:
    return StateStore(folder, load_config(None, overrides), origin or ORIGIN)


def writer(text: str):
    return lambda folder: (Path(folder) / "file").write_text(text)


def test_trainer_state_round_trip(tmp_path):
    write_state(tmp_path, STATE)
    back = read_state(tmp_path)
    assert [tuple(pair) for pair in back.reference_rewards] == STATE.reference_rewards
    assert (back.start, back.best, back.controller, back.version) == (
        STATE.start,
        STATE.best,
        STATE.controller,
        2,
    )


def test_damaged_trainer_state_is_refused(tmp_path):
    with pytest.raises(PPOError, match="trainer_state"):
        read_state(tmp_path)
    (tmp_path / "trainer.json").write_text(
        json.dumps({"start": None, "best": None, "iterations_done": 1})
    )
    with pytest.raises(PPOError, match="trainer_state"):
        read_state(tmp_path)


def test_the_newest_complete_state_wins_and_older_ones_go(tmp_path):
    states = store(tmp_path)
    assert states.latest() is None
    states.save(5, writer("five"))
    states.save(10, writer("ten"))
    iteration, folder = states.latest()
    assert (iteration, (folder / "file").read_text()) == (10, "ten")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iteration-000010", "latest.json"]


def test_the_newest_states_are_kept_and_a_rolled_back_future_is_not(tmp_path):
    states = StateStore(tmp_path, load_config(None, []), ORIGIN, keep=2)
    for iteration in (5, 10, 15, 6):  # 6: an attempt that started again from 5
        states.save(iteration, writer(str(iteration)))
    assert states.iteration() == 6
    assert sorted(p.name for p in tmp_path.glob("iteration-*")) == ["iteration-000006"]
    states.save(7, writer("seven"))
    assert sorted(p.name for p in tmp_path.glob("iteration-*")) == [
        "iteration-000006",
        "iteration-000007",
    ]


def test_a_save_that_dies_leaves_the_older_state(tmp_path):
    states = store(tmp_path)
    states.save(5, writer("five"))

    def dies(folder: str) -> None:
        (Path(folder) / "file").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        states.save(10, dies)
    iteration, folder = states.latest()
    assert (iteration, (folder / "file").read_text()) == (5, "five")
    states.save(10, writer("ten"))
    assert states.latest()[0] == 10


@pytest.mark.parametrize(
    "key", ["ppo.clip=0.1", "seed=8", "reward.clip_high=1.4", "model.instruction=other"]
)
def test_other_settings_are_refused_by_name(tmp_path, key):
    store(tmp_path).save(5, writer("five"))
    with pytest.raises(PPOError, match=key.partition("=")[0]):
        store(tmp_path, key).latest()


def test_other_weights_or_data_are_refused(tmp_path):
    store(tmp_path).save(5, writer("five"))
    with pytest.raises(PPOError, match=r"origin\.sft"):
        store(tmp_path, origin={"sft": "z", "data": "b"}).latest()


@pytest.mark.parametrize(
    "key",
    [
        "ppo.iterations=100",
        "ppo.eval_every=3",
        "rollout.engines=2",
        "threads=2",
        "name=x",
        "data.decode_workers=3",
        "data.max_image_mb=9",
        "data.cache_gb=1",
    ],
)
def test_settings_outside_the_mathematics_may_change(tmp_path, key):
    store(tmp_path).save(5, writer("five"))
    assert store(tmp_path, key).latest()[0] == 5
