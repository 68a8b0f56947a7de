"""Settings: what is accepted, what is refused, and what the refusal says."""

import pytest
import yaml

from lmrrg.config.base import ConfigError
from lmrrg.config.description import config_help, describe_config
from lmrrg.config.loading import load_config, save_config
from lmrrg.config.tree import Config


@pytest.mark.parametrize("name", ["demo", "iu_xray", "iu_xray_smollm2", "mimic_cxr"])
def test_shipped_configs_load(name, repo_root):
    config = load_config(repo_root / "configs" / f"{name}.yaml")
    assert config.name == name


def test_override_wins_over_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("ppo: {clip: 0.3}\n")
    assert load_config(file).ppo.clip == 0.3
    assert load_config(file, ["ppo.clip=0.1"]).ppo.clip == 0.1


def test_saved_config_is_the_same_config(tmp_path):
    config = load_config(None, ["ppo.kl.controller=target", "data.section=impression"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ppo.clp=0.1", ["ppo.clp", "ppo.clip", "allowed here"]),
        ("pppo=1", ["pppo is not a setting", "ppo", "sft"]),
        ("ppo.clip=3", ["ppo.clip", "less than 1"]),
        ("evaluation.reference_tokens=0", ["evaluation.reference_tokens", "greater than 0"]),
        ("data.cache_gb=.inf", ["data.cache_gb", "finite"]),
        ("data.source=flickr", ["data.source", "'phantom'", "'iu-xray'"]),
        ("data.source=jsonl", ["data.path is required"]),
        ("sft.minibatch=5", ["sft", "multiple of microbatch"]),
        ("ppo.minibatch=96", ["ppo", "divide the rollout batch 128"]),
        ("ppo.old_log_probs=engine", ["ppo", "gives ppo its values"]),
        ("model.decoder.heads=16", ["model.decoder", "at least 32"]),
        ("ppo.kl.initial=5", ["ppo.kl", "maximum"]),
        ("sft.learning_rate=.inf", ["sft.learning_rate", "finite"]),
        ("model.extractor_heads=3", ["extractor_heads 3 must divide extractor_width"]),
        ("model.decoder.vocabulary=10", ["model.decoder.vocabulary", "260"]),
        ("data.max_report_tokens=5000", ["data.max_report_tokens may be at most half"]),
        ("reward.backend=published", ["reward.published_dir"]),
        ("reward.parts.label_f1=0.3", ["ppo.heldout_metric", "rouge_l"]),
        ("reward.parts.radcliq=0", ["no part a weight above 0"]),
        ("reward.parts.judge=0.5", ["reward.judge.url"]),
        ("reward.backend=reference", ["reward.backend=reference is now called published"]),
        ("reward.reference_dir=x", ["reward.reference_dir is now called reward.published_dir"]),
        (
            "reward.reference_cache=x",
            ["reward.reference_cache is now called reward.published_cache"],
        ),
        ("ppo", ["key=value"]),
        ("ppo.clip.x=3", ["ppo.clip"]),
        ("ppo.clip=[", ["not valid YAML"]),
    ],
)
def test_refusals_name_key_and_allowed_values(override, words):
    with pytest.raises(ConfigError) as refusal:
        load_config(None, [override])
    for word in words:
        assert word in str(refusal.value)


def test_refusal_names_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("sft: {epoch: 3}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml.*sft\.epoch .*sft\.epochs"):
        load_config(file)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [\n", "just words"])
def test_files_that_are_no_settings(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(file)


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml"):
        load_config(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sft: {epochs: 3}\ndata: {max_views: 1}\nsft:\n  workers: 2\n", "sft"),
        ("sft: {epochs: 3, epochs: 4}\n", "epochs"),
        ("ppo:\n  kl:\n    initial: 0.1\n  clip: 0.1\n  kl: {target: 1}\n", "kl"),
    ],
)
def test_a_key_that_occurs_twice_is_refused(tmp_path, text, key):
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"twice\.yaml.*the key {key} occurs twice"):
        load_config(tmp_path / "twice.yaml")


def test_a_setting_may_replace_one_that_is_merged_in(tmp_path):
    file = tmp_path / "merged.yaml"
    file.write_text("sft: &shared {gradient_clip: 2.0}\nppo: {<<: *shared, gradient_clip: 3.0}\n")
    assert load_config(file).ppo.gradient_clip == 3.0


def test_a_save_that_fails_leaves_the_old_settings(tmp_path, monkeypatch):
    save_config(Config(), tmp_path / "config.yaml")

    def full(tree, stream=None, **_):
        if stream is None:
            return "na"
        stream.write("na")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(yaml, "safe_dump", full)
    with pytest.raises(OSError, match="No space"):
        save_config(Config(), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == Config()
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_missing_file():
    with pytest.raises(ConfigError, match="does not exist"):
        load_config("nowhere.yaml")


def test_every_setting_is_documented():
    undocumented = [setting.key for setting in describe_config() if not setting.meaning]
    assert undocumented == []
    assert all(setting.key in config_help() for setting in describe_config())


def test_documented_defaults_are_the_defaults():
    dumped = Config().model_dump(mode="json")
    for setting in describe_config():
        value = dumped
        for part in setting.key.split("."):
            value = value[part]
        assert yaml.safe_load(setting.default) == value, setting.key


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("data.eval_split", "val|test"),
        ("data.train_limit", "int > 0 or null"),
        ("data.path", "path or null"),
        ("ppo.clip", "float > 0, < 1"),
        ("ppo.mixtures", "list of float"),
        ("model.instruction", "text"),
        ("sft.resume", "bool"),
    ],
)
def test_types_are_described_with_their_limits(key, kind):
    assert {setting.key: setting.type for setting in describe_config()}[key] == kind


@pytest.mark.parametrize(
    ("store", "address"),
    [
        ("s3://bucket/prefix/", "s3://bucket/prefix/demo/ppo"),
        (
            "s3://bucket?endpoint_override=host&scheme=http",
            "s3://bucket/demo/ppo?endpoint_override=host&scheme=http",
        ),
        ("null", None),
    ],
)
def test_a_store_keeps_its_options_behind_the_run(store, address):
    config = load_config(None, ["name=demo", f"ray.checkpoint_storage={store}"])
    assert config.checkpoint_uri("ppo") == address


def test_a_model_in_a_folder_lies_below_the_shared_storage(monkeypatch, tmp_path):
    monkeypatch.setenv("LMRRG_HOME", str(tmp_path))
    for folder in ("weights/llama", "weights/encoder", "minilm"):
        (tmp_path / folder).mkdir(parents=True)
    asked = ["model.decoder.pretrained=weights/llama", "model.text_encoder=weights/encoder"]
    model = load_config(None, asked).model
    assert model.decoder.pretrained == str(tmp_path / "weights/llama")
    assert model.text_encoder == str(tmp_path / "weights/encoder")
    hub = load_config(None, ["model.decoder.pretrained=meta-llama/Llama-2-7b-hf"]).model
    assert (hub.decoder.pretrained, hub.text_encoder) == ("meta-llama/Llama-2-7b-hf", "minilm"), (
        "names, not folders"
    )
    small = load_config(
        None, ["model.decoder.pretrained=null", f"model.text_encoder={tmp_path}/weights/encoder"]
    ).model
    assert (small.decoder.pretrained, small.text_encoder) == (None, f"{tmp_path}/weights/encoder")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.columns={foo: bar}", "data.columns: 'foo' is none of our columns: study_id,"),
        (
            "model.image_encoder=resnet",
            "model.image_encoder.name: 'resnet' is none of efficientnet_lite0, ",
        ),
        ("reward.function=score", "reward.function: 'score' is not of the form module:function"),
    ],
)
def test_names_of_ones_own_are_refused_in_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert sentence in str(caught.value)
    assert ";" not in str(caught.value)
