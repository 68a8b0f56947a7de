"""Test the layout files, their bundles, and the messages when they do not fit, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.placement import bundle, describe, shortage
from lmrrg.config.base import ConfigError
from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from rl.crew import crew_layout
from tests.support.paths import ROOT

NODE = {"CPU": 96, "GPU": 8}
CLUSTERS = {"1gpu": [{"CPU": 4, "GPU": 1}], "8gpu": [NODE], "4x8gpu": [NODE] * 4}
FILES = sorted((ROOT / "configs" / "layouts").glob("*.yaml"))


def on(base: str, layout: Path, *overrides: str) -> Config:
    """Return a shipped configuration with a layout on top."""
    return load_config(f"{ROOT / 'configs' / base}.yaml,{layout}", overrides)


def named(name: str) -> Path:
    return ROOT / "configs" / "layouts" / f"{name}.yaml"


def test_there_is_a_layout_for_every_size_and_way():
    assert {f"{size}_{way}" for size in CLUSTERS for way in ("colocated", "split")} == {
        file.stem for file in FILES
    }


@pytest.mark.parametrize("base", ["demo", "iu_xray"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_layout_fits_its_cluster_and_nothing_smaller(file, base):
    config = on(base, file)
    size, way = file.stem.split("_")
    assert config.ray.placement == way
    layout = crew_layout(config)
    assert shortage(layout.bundles, CLUSTERS[size]) == ""
    assert shortage(layout.bundles, [{"CPU": 96, "GPU": 0}]), "it asks for GPUs"
    assert config.sft.workers * config.sft.gpus_per_worker == sum(
        node["GPU"] for node in CLUSTERS[size]
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_actor_fits_into_its_bundle_beside_its_neighbours(file):
    """Add up what each actor asks for: it fills the bundles, except for the rounded GPUs."""
    config = on("iu_xray", file)
    layout = crew_layout(config)
    room = [dict(each) for each in layout.bundles]
    ppo, rollout, reward = config.ppo, config.rollout, config.reward
    rank, engine = (
        bundle(ppo.cpus_per_worker, ppo.gpus_per_worker),
        bundle(rollout.cpus_per_engine, rollout.gpus_per_engine),
    )
    seats = [(layout.policy + k, rank) for k in range(ppo.workers)] + [
        (layout.reference + k, rank) for k in range(ppo.reference_workers)
    ]
    seats += [(layout.rollouts + k, engine) for k in range(rollout.engines)]
    seats += [(layout.rewards + k, bundle(reward.cpus_per_scorer)) for k in range(reward.scorers)]
    for index, asked in seats:
        for name, amount in asked.items():
            room[index][name] -= amount
            assert room[index][name] > -1e-6
    assert sum(left["CPU"] for left in room) == pytest.approx(0)
    spare = max(left.get("GPU", 0) for left in room)
    assert spare < 1, "no bundle reserves a GPU that nobody uses"


def test_colocated_actors_share_whole_gpus():
    layout = crew_layout(on("iu_xray", named("8gpu_colocated")))
    assert [each["GPU"] for each in layout.bundles[:8]] == [1] * 8
    assert layout.policy == layout.reference == layout.rollouts == 0


@pytest.mark.parametrize("placement", ["split", "colocated"])
def test_a_lora_policy_is_its_own_reference(placement):
    lora, both = ["model.decoder.lora_rank=4", f"ray.placement={placement}"], ["ppo.trainable=all"]
    small, large = (
        crew_layout(load_config(None, lora)),
        crew_layout(load_config(None, [*lora, *both])),
    )
    assert (
        sum(each["CPU"] for each in large.bundles) - sum(each["CPU"] for each in small.bundles) == 1
    )
    assert len(small.bundles) - small.rewards == len(large.bundles) - large.rewards
    assert small.bundles[small.rewards :] == large.bundles[large.rewards :]


def test_a_gpu_that_holds_no_reference_has_room_for_a_larger_policy():
    seat = ["ray.placement=colocated", "ppo.gpus_per_worker=0.65", "rollout.gpus_per_engine=0.35"]
    assert (
        crew_layout(load_config(None, [*seat, "model.decoder.lora_rank=4"])).bundles[0]["GPU"] == 1
    )
    for with_reference in ([], ["model.decoder.lora_rank=4", "ppo.trainable=all"]):
        with pytest.raises(ConfigError, match=r"together 1\.65"):
            load_config(None, [*seat, *with_reference])


def test_on_cpu_colocated_means_shared_bundles_without_gpus():
    config = load_config(None, ["ray.placement=colocated", "ppo.workers=2", "rollout.engines=1"])
    assert crew_layout(config).bundles == [{"CPU": 3}, {"CPU": 1}, {"CPU": 0.5}]
    copies = load_config(
        None, ["ray.placement=colocated", "ppo.workers=2", "ppo.reference_workers=3"]
    )
    assert crew_layout(copies).bundles == [{"CPU": 3}, {"CPU": 2}, {"CPU": 1}, {"CPU": 0.5}]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["ray.placement=colocated", "ppo.gpus_per_worker=0.5", "rollout.gpus_per_engine=0.3"],
            "together 1.3, at most 1",
        ),
        (
            [
                "ray.placement=colocated",
                "rollout.tensor_parallel_size=2",
                "rollout.gpus_per_engine=2",
            ],
            "at most 1",
        ),
        (
            [
                "ray.placement=colocated",
                "model.decoder.lora_rank=4",
                "ppo.gpus_per_worker=0.8",
                "rollout.gpus_per_engine=0.3",
            ],
            "together 1.1, at most 1",
        ),
        (
            ["rollout.tensor_parallel_size=2", "rollout.gpus_per_engine=1"],
            "needs as many rollout.gpus_per_engine",
        ),
    ],
)
def test_impossible_layouts_are_refused_before_any_work(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_config(None, overrides)


def test_later_files_win_and_overrides_win_over_all(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("ppo: {workers: 4, clip: 0.3, kl: {target_per_sequence: 3.0}}\n")
    second.write_text("ppo: {workers: 2, kl: {controller: target}}\n")
    ppo = load_config(f"{first},{second}", ["ppo.microbatch=16"]).ppo
    assert (ppo.workers, ppo.clip, ppo.microbatch) == (2, 0.3, 16)
    assert (ppo.kl.controller, ppo.kl.target_per_sequence) == ("target", 3.0)


def test_relative_paths_lie_below_the_shared_storage(monkeypatch, tmp_path):
    monkeypatch.setenv("LMRRG_HOME", str(tmp_path))
    config = load_config(
        None, ["data.source=jsonl", "data.path=/else/studies.jsonl", "data.images=films"]
    )
    assert config.run_dir == tmp_path / "runs" / "demo"
    assert config.data.cache_dir == tmp_path / ".cache" / "features"
    assert (config.data.path, config.data.images) == (
        Path("/else/studies.jsonl"),
        tmp_path / "films",
    )
    assert config.data.labels is None


def test_a_shortage_is_counted_in_bundles_and_nodes():
    asked = crew_layout(on("iu_xray", named("4x8gpu_colocated"))).bundles
    assert (
        shortage(asked, [NODE]) == "24 x {CPU 10, GPU 1}, that is 3 more nodes with CPU 96, GPU 8"
    )
    assert (
        shortage(asked, [NODE] * 3) == "8 x {CPU 10, GPU 1}, that is 1 more node with CPU 96, GPU 8"
    )
    assert "no node is large enough for CPU 8, GPU 2" in shortage(
        [bundle(8, 2)], [{"CPU": 96, "GPU": 1}] * 8
    )


def test_free_shares_on_different_gpus_do_not_add_up_over_nodes():
    assert shortage([bundle(1, 1)], [{"CPU": 4, "GPU": 0.5}] * 2)


bundles = st.lists(
    st.builds(bundle, st.sampled_from([0.5, 1, 4]), st.sampled_from([0, 0.3, 1, 2])),
    min_size=1,
    max_size=12,
)
clusters = st.lists(
    st.builds(bundle, st.sampled_from([1, 4, 16]), st.sampled_from([0, 1, 4])),
    min_size=1,
    max_size=4,
)


@given(bundles, clusters)
def test_what_is_missing_is_what_would_be_enough(asked, nodes):
    """Add the named number of nodes: it ends the shortage, and one less does not."""
    text = shortage(asked, nodes)
    if not text or "no node is large enough" in text:
        return
    count, kind = text.split("that is ")[1].split(" more node")
    node = {
        name: float(amount)
        for name, amount in (part.split(" ") for part in kind.split("with ")[1].split(", "))
    }
    assert shortage(asked, [*nodes, *[node] * int(count)]) == ""
    assert shortage(asked, [*nodes, *[node] * (int(count) - 1)])


@given(bundles)
def test_one_node_with_everything_is_enough(asked):
    total = {name: sum(each.get(name, 0) for each in asked) for name in ("CPU", "GPU")}
    assert shortage(asked, [total]) == ""


@given(bundles)
def test_descriptions_count_every_bundle(asked):
    counts = [int(part.split(" x ")[0]) for part in describe(asked).split("}, ")]
    assert sum(counts) == len(asked)


@pytest.mark.parametrize(
    ("way", "fitting"),
    [
        ("nccl", {"8gpu_split", "4x8gpu_split"}),
        ("ipc", {"1gpu_colocated", "8gpu_colocated", "4x8gpu_colocated"}),
    ],
)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_weights_go_from_gpu_to_gpu_where_the_layout_allows_it(file, way, fitting):
    override = f"rollout.weight_transfer={way}"
    if file.stem in fitting:
        assert on("iu_xray", file, override).rollout.weight_transfer == way
    else:
        with pytest.raises(ConfigError, match=override):
            on("iu_xray", file, override)


@pytest.mark.parametrize("way", ["nccl", "ipc"])
def test_weights_do_not_go_from_gpu_to_gpu_without_gpus(way):
    with pytest.raises(ConfigError, match=f"rollout.weight_transfer={way} needs"):
        load_config(None, [f"rollout.weight_transfer={way}"])


def test_every_engine_needs_a_neighbour_that_it_can_map():
    seats = ["ppo.workers=2", "rollout.engines=3", "ppo.minibatch=64", "ppo.microbatch=8"]
    with pytest.raises(ConfigError, match="a policy rank on each engine's GPU"):
        on("iu_xray", named("8gpu_colocated"), "rollout.weight_transfer=ipc", *seats)
